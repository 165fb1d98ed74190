/** The server as a provider of ComputeSDK: `compute.setConfig({ provider: sandboxMCP({ url, token }) })`. */
import type { ExplicitComputeConfig, SandboxInterface } from "computesdk";
import type { ConnectOptions } from "../connection.ts";
import { SandboxError } from "../errors.ts";
import { type SandboxServer, connect } from "../index.ts";
import type { Sandbox } from "../sandbox.ts";
import { MAX_RUN_SECONDS } from "../tool-types.ts";
import { Sessions, newName, quote } from "./shell-sessions.ts";

type Provider = NonNullable<ExplicitComputeConfig["provider"]>;

const NAME = "sandbox-mcp";

export function sandboxMCP(options: ConnectOptions): Provider {
  const server = connect(options);
  const checkpoints = async () => (await server.list()).checkpoints;
  return {
    name: NAME,
    sandbox: {
      async create({ name = newName("computesdk"), envs, snapshotId, directory, timeout } = {}) {
        const sandbox = server.sandbox(name);
        if (snapshotId !== undefined) await sandbox.restore(snapshotId);
        if (envs !== undefined) await sandbox.configure({ env: envs });
        // Starts the sandbox, so that `create` throws the errors of a start.
        const created = toComputeSandbox(server, sandbox, { directory, timeout });
        await created.filesystem.mkdir(directory ?? ".");
        return created;
      },
      async getById(id) {
        const isKnown = (await server.list()).sandboxes.some(({ name }) => name === id);
        return isKnown ? toComputeSandbox(server, server.sandbox(id)) : null;
      },
      async list() {
        return (await server.list()).sandboxes.map(({ name }) =>
          toComputeSandbox(server, server.sandbox(name)),
        );
      },
      destroy: (id) => server.sandbox(id).destroy(),
    },
    snapshot: {
      async create(id, { name } = {}) {
        const { checkpoint } = await server.sandbox(id).checkpoint(name);
        return { id: checkpoint, provider: NAME, createdAt: new Date() };
      },
      async list() {
        return (await checkpoints()).map(({ id, savedAt }) => ({ id, provider: NAME, createdAt: savedAt }));
      },
      async delete(id) {
        const found = (await checkpoints()).find((each) => each.id === id);
        if (found) await server.sandbox(found.sandbox).deleteCheckpoint(id);
      },
    },
  };
}

/** @param defaults the default directory and time limit (milliseconds) of commands */
function toComputeSandbox(
  server: SandboxServer,
  sandbox: Sandbox,
  defaults: { directory?: string; timeout?: number } = {},
): SandboxInterface {
  const { directory, timeout: given = Infinity } = defaults;
  const limit = Math.min(given, MAX_RUN_SECONDS * 1000);
  const { files, name } = sandbox;
  const sessions = new Sessions(sandbox, "computesdk");
  return {
    sandboxId: name,
    provider: NAME,
    async runCommand(command, options = {}) {
      const { cwd = directory, env, timeout = limit, background, onStdout, onStderr } = options;
      const startedAt = Date.now();
      const run = await sessions.run(background ? backgroundCommand(command) : command, {
        cwd,
        env,
        timeoutSeconds: Math.max(1, Math.ceil(timeout / 1000)),
        onOutput: ({ stream, text }) => (stream === "stdout" ? onStdout : onStderr)?.(text),
      });
      const { stdout, stderr, exitCode } = run;
      return { stdout, stderr, exitCode, durationMs: Date.now() - startedAt };
    },
    async getInfo() {
      const found = (await server.list()).sandboxes.find((each) => each.name === name);
      return {
        id: name,
        provider: NAME,
        status: found?.state === "running" ? "running" : "stopped",
        createdAt: new Date(found?.createdAt ?? Date.now()),
        timeout: limit,
      };
    },
    async getUrl({ port }) {
      const { url } = await sandbox.expose(port);
      return url;
    },
    destroy: () => sandbox.destroy(),
    filesystem: {
      readFile: (path) => files.readText(path),
      writeFile: async (path, content) => void (await files.write(path, content)),
      async readdir(path) {
        const entries = await files.list(path);
        return entries.map((entry) => ({
          name: entry.path,
          type: entry.type === "directory" ? "directory" : "file",
          size: entry.size,
          modified: new Date(entry.modified),
        }));
      },
      async mkdir(path) {
        const { exitCode, stderr } = await sessions.run(`mkdir -p -- ${quote(path)}`);
        if (exitCode !== 0) throw new SandboxError("file_system", stderr.trim());
      },
      exists: async (path) => (await sessions.run(`[ -e ${quote(path)} ]`)).exitCode === 0,
      remove: (path) => files.remove(path, { recursive: true }),
    },
  };
}

function backgroundCommand(command: string): string {
  return `nohup setsid bash -c ${quote(command)} >/dev/null 2>&1 &`;
}
