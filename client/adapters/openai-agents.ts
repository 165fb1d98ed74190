/**
 * Sandboxes for the sandbox agents of OpenAI's Agents SDK: `run(agent, input, { sandbox: { client: openAISandboxes(server) } })`.
 */
import { type Editor, type ToolOutputImage, UserError, applyDiff } from "@openai/agents-core";
import * as sdk from "@openai/agents-core/sandbox";
import * as internal from "@openai/agents-core/sandbox/internal";
import { ConnectionError, SandboxError } from "../errors.ts";
import {
  archiveTooLarge,
  existsAlready,
  noSession,
  notChecked,
  notFoundText,
  sandboxGone,
  UNSUPPORTED,
} from "../texts.ts";
import type { SandboxServer } from "../index.ts";
import type { Sandbox } from "../sandbox.ts";
import { Process } from "./process.ts";
import { Sessions, newName, quote } from "./shell-sessions.ts";

export type OpenAISandboxOptions = {
  /**
   * The sandbox's name. A sandbox with a name survives the run. Without a name, the run gets a new sandbox that ends with the
   * run.
   */
  name?: string;
};

export interface OpenAISandboxState extends sdk.SandboxSessionState {
  name: string;
  isKept: boolean;
}

/** The default waits for output, in milliseconds. The SDK's own tools have the same defaults. */
const EXEC_YIELD_MS = 10_000;
const STDIN_YIELD_MS = 250;

/** @param defaults options for runs whose `sandbox.options` leaves them out */
export function openAISandboxes(
  server: SandboxServer,
  defaults: OpenAISandboxOptions = {},
): sdk.SandboxClient<OpenAISandboxOptions, OpenAISandboxState> {
  return {
    backendId: "sandbox-mcp",
    async create(...given: Parameters<typeof sdk.normalizeSandboxClientCreateArgs<OpenAISandboxOptions>>) {
      const { manifest, options, snapshot } = sdk.normalizeSandboxClientCreateArgs(...given);
      if (snapshot) throw unsupported(UNSUPPORTED.snapshots);
      const name = options?.name ?? defaults.name;
      const state = {
        manifest: new sdk.Manifest({ root: manifest.root }),
        name: name ?? newName("openai-agents"),
        isKept: name !== undefined,
      };
      const session = new Session(server.sandbox(state.name), state);
      try {
        await session.applyManifest(manifest);
      } catch (error) {
        await session.close().catch(() => undefined);
        throw error;
      }
      return session;
    },
    delete: ({ name }) => server.sandbox(name).destroy(),
    canPersistOwnedSessionState: ({ isKept }) => isKept,
    serializeSessionState: async ({ manifest, name, isKept }) => ({
      manifest: internal.serializeManifestRecord(manifest),
      name,
      isKept,
    }),
    async deserializeSessionState(record) {
      const manifest = internal.deserializeManifest(record.manifest as Record<string, unknown> | undefined);
      const environment = await manifest.resolveEnvironment();
      return {
        manifest,
        environment,
        name: internal.readString(record, "name"),
        isKept: record.isKept === true,
      };
    },
    async resume(state) {
      const isThere = (await server.list()).sandboxes.some(({ name }) => name === state.name);
      if (!isThere) throw new sdk.SandboxLifecycleError(sandboxGone(state.name));
      return new Session(server.sandbox(state.name), state);
    },
  };
}

class Session implements sdk.SandboxSession<OpenAISandboxState> {
  state: OpenAISandboxState;
  readonly #sandbox: Sandbox;
  readonly #sessions: Sessions;
  readonly #processes = new Map<number, Process>();
  #lastID = 0;

  constructor(sandbox: Sandbox, state: OpenAISandboxState) {
    this.#sandbox = sandbox;
    this.#sessions = new Sessions(sandbox, "openai");
    this.state = state;
  }

  supportsPty(): boolean {
    return true;
  }

  /** Waits `yieldTimeMs`. A command that takes longer continues; `writeStdin` reaches it by its `sessionId`. */
  async exec(args: sdk.ExecCommandArgs): Promise<sdk.SandboxExecResult> {
    const { cmd, shell, login, tty, workdir, runAs, yieldTimeMs = EXEC_YIELD_MS } = args;
    refuseUser(runAs);
    const command = shell ? `${quote(shell)} ${login === false ? "-c" : "-lc"} ${quote(cmd)}` : cmd;
    const options = { cwd: this.#path(workdir), env: this.state.environment, interactive: tty ?? false };
    const id = ++this.#lastID;
    this.#processes.set(id, new Process(this.#sandbox, this.#sessions, command, options));
    return this.#next(id, yieldTimeMs, args.maxOutputTokens);
  }

  execCommand(args: sdk.ExecCommandArgs): Promise<string> {
    return withErrorText(() => this.exec(args));
  }

  writeStdin({ sessionId, chars, yieldTimeMs, maxOutputTokens }: sdk.WriteStdinArgs): Promise<string> {
    return withErrorText(async () => {
      if (chars) await this.#findProcess(sessionId).type(chars);
      return this.#next(sessionId, yieldTimeMs ?? STDIN_YIELD_MS, maxOutputTokens);
    });
  }

  async readFile({ path, runAs, maxBytes = Infinity }: sdk.ReadFileArgs): Promise<Uint8Array> {
    refuseUser(runAs);
    return (await this.#read(path, maxBytes)).subarray(0, maxBytes);
  }

  async viewImage({ path, runAs }: sdk.ViewImageArgs): Promise<ToolOutputImage> {
    refuseUser(runAs);
    return internal.imageOutputFromBytes(path, await this.#read(path, internal.MAX_VIEW_IMAGE_BYTES));
  }

  async listDir({ path, runAs }: sdk.ListDirectoryArgs): Promise<sdk.SandboxDirectoryEntry[]> {
    refuseUser(runAs);
    const directory = this.#path(path);
    const shown = internal.relativePosixPathWithinRoot(this.state.manifest.root, directory) ?? directory;
    return (await this.#sandbox.files.list(directory)).map(({ path: name, type }) => ({
      name,
      path: shown === "" ? name : `${shown}/${name}`,
      type: type === "directory" ? "dir" : type === "file" ? "file" : "other",
    }));
  }

  pathExists(path: string, runAs?: string): Promise<boolean> {
    return this.#testPath("-e", path, runAs);
  }

  directoryExists(path: string, runAs?: string): Promise<boolean> {
    return this.#testPath("-d", path, runAs);
  }

  createEditor(runAs?: string): Editor {
    refuseUser(runAs);
    const { files } = this.#sandbox;
    return {
      createFile: async ({ path, diff }) => {
        if (await this.pathExists(path)) throw new UserError(existsAlready(path));
        await files.write(this.#path(path), applyDiff("", diff, "create"));
      },
      updateFile: async ({ path, diff, moveTo }) => {
        const [from, to] = [this.#path(path), this.#path(moveTo ?? path)];
        // Throws for bytes that are not UTF-8, because they would be lost when the file is written.
        const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(
          await this.#read(path),
        );
        await files.write(to, applyDiff(text, diff));
        if (from !== to) await files.remove(from);
      },
      deleteFile: ({ path }) => files.remove(this.#path(path)),
    };
  }

  async materializeEntry({ path, entry, runAs }: sdk.MaterializeEntryArgs): Promise<void> {
    const { root } = this.state.manifest;
    const relative = internal.relativePosixPathWithinRoot(root, this.#path(path)) ?? path;
    await this.applyManifest(new sdk.Manifest({ root, entries: { [relative]: entry } }), runAs);
  }

  async applyManifest(manifest: sdk.Manifest, runAs?: string): Promise<void> {
    refuseUser(runAs);
    refuseUnsupported(manifest);
    const environment = { ...this.state.environment, ...(await manifest.resolveEnvironment()) };
    await this.#check(`mkdir -p -- ${quote(manifest.root)}`);
    for (const { absolutePath: path, entry } of manifest.iterEntries()) {
      if (entry.type === "dir") await this.#check(`mkdir -p -- ${quote(path)}`);
      if (entry.type === "file") await this.#sandbox.files.write(path, entry.content);
      if (entry.type === "git_repo") await this.#check(cloneCommand(entry, path));
      if (entry.permissions === undefined) continue;
      const mode = sdk.permissionsForSandboxEntry(entry.permissions).toMode() & 0o7777;
      await this.#check(`chmod ${mode.toString(8)} -- ${quote(path)}`);
    }
    this.state.manifest = internal.mergeManifestDelta(this.state.manifest, manifest);
    this.state.environment = environment;
  }

  /** Returns the workspace as a tar archive, without the entries that the manifest marks as ephemeral. */
  async persistWorkspace(): Promise<Uint8Array> {
    const { root } = this.state.manifest;
    const excluded = [...this.state.manifest.ephemeralPersistencePaths()];
    if (excluded.includes("")) throw unsupported(UNSUPPORTED.ephemeralRoot);
    const options = excluded.map((path) => `--exclude=${quote(`./${path}`)}`);
    const archive = `/tmp/${newName("workspace")}.tar`;
    try {
      await this.#check(
        ["tar --anchored --no-wildcards", ...options, `-C ${quote(root)} -cf ${archive} .`].join(" "),
      );
      return await this.#read(archive);
    } finally {
      await this.#check(`rm -f ${archive}`);
    }
  }

  /** Replaces the workspace with the content of an archive from `persistWorkspace`. */
  async hydrateWorkspace(
    data: sdk.WorkspaceArchiveData,
    { archiveLimits }: sdk.WorkspaceArchiveOptions = {},
  ): Promise<void> {
    const bytes = typeof data === "string" ? new TextEncoder().encode(data) : new Uint8Array(data);
    const { maxInputBytes } = archiveLimits ?? {};
    if (bytes.length > (maxInputBytes ?? Infinity))
      throw new UserError(archiveTooLarge(bytes.length, maxInputBytes));
    const root = quote(this.state.manifest.root);
    const archive = `/tmp/${newName("workspace")}.tar`;
    await this.#sandbox.files.upload(archive, bytes);
    try {
      // Checks the archive first, so that an invalid archive removes nothing.
      await this.#check(
        `tar -tf ${archive} >/dev/null && mkdir -p -- ${root} && find ${root} -mindepth 1 -delete && tar -C ${root} -xf ${archive}`,
      );
    } finally {
      await this.#check(`rm -f ${archive}`);
    }
  }

  async resolveExposedPort(port: number): Promise<sdk.ExposedPortEndpoint> {
    const { url } = await this.#sandbox.expose(port);
    const { protocol, hostname, port: given, search } = new URL(url);
    const tls = protocol === "https:";
    return { host: hostname, port: Number(given) || (tls ? 443 : 80), tls, query: search.slice(1), url };
  }

  /** Ends running processes, and the sandbox unless it was named. */
  async close(): Promise<void> {
    await Promise.all([...this.#processes.values()].map((process) => process.kill()));
    this.#processes.clear();
    if (!this.state.isKept) await this.#sandbox.destroy();
  }

  delete(): Promise<void> {
    return this.close();
  }

  #path(path = "."): string {
    return internal.normalizePosixPath(path.startsWith("/") ? path : `${this.state.manifest.root}/${path}`);
  }

  #findProcess(id: number): Process {
    const process = this.#processes.get(id);
    if (process) return process;
    throw new SandboxError("not_found", ...noSession(id));
  }

  async #next(id: number, waitMs: number, maxTokens: number | undefined): Promise<sdk.SandboxExecResult> {
    const startedAt = Date.now();
    const process = this.#findProcess(id);
    let exitCode: number | undefined;
    try {
      exitCode = await process.wait(waitMs);
      if (exitCode !== undefined) this.#processes.delete(id);
    } catch (error) {
      this.#processes.delete(id);
      throw error;
    }
    const { all, stdout, stderr } = process.take();
    const { text: output, originalTokenCount } = internal.truncateOutput(all, maxTokens);
    const wallTimeSeconds = (Date.now() - startedAt) / 1000;
    const end = exitCode === undefined ? { sessionId: id } : { exitCode };
    return { output, stdout, stderr, wallTimeSeconds, originalTokenCount, ...end };
  }

  /** Returns a file's bytes. If the file is longer than `maxBytes`, returns slightly more than `maxBytes` bytes. */
  async #read(path: string, maxBytes = Infinity): Promise<Uint8Array> {
    const parts: Uint8Array<ArrayBuffer>[] = [];
    let size = 0;
    try {
      for await (const part of await this.#sandbox.files.download(this.#path(path))) {
        parts.push(part as Uint8Array<ArrayBuffer>);
        size += part.length;
        if (size > maxBytes) break;
      }
    } catch (error) {
      if (!(error instanceof SandboxError && error.code === "not_found")) throw error;
      throw new sdk.SandboxWorkspaceReadNotFoundError(notFoundText(path), { path });
    }
    return new Uint8Array(await new Blob(parts).arrayBuffer());
  }

  async #testPath(test: "-e" | "-d", path: string, runAs?: string): Promise<boolean> {
    refuseUser(runAs);
    const { exitCode, state } = await this.#sessions.run(`[ ${test} ${quote(this.#path(path))} ]`);
    if (state === "succeeded" || state === "failed") return exitCode === 0;
    throw new SandboxError("file_system", ...notChecked(path, state));
  }

  async #check(command: string): Promise<void> {
    const { exitCode, stderr } = await this.#sessions.run(command);
    if (exitCode !== 0) throw new SandboxError("file_system", stderr.trim().slice(-1000));
  }
}

/** Turns errors into output for a model, because the SDK hides error messages from it. */
async function withErrorText(work: () => Promise<sdk.SandboxExecResult>): Promise<string> {
  try {
    return internal.formatExecResponse(await work());
  } catch (error) {
    if (!(error instanceof SandboxError) || error instanceof ConnectionError) throw error;
    return internal.formatExecResponse({
      output: `${error.message} ${error.hint}`,
      wallTimeSeconds: 0,
      exitCode: 1,
    });
  }
}

/** The command that fetches one commit of a repository, without its history. `ref` is a branch, a tag or a commit. */
function cloneCommand(
  { host = "github.com", repo, ref = "HEAD", subpath = "." }: sdk.GitRepo,
  path: string,
): string {
  const url = repo.includes("://") || repo.startsWith("git@") ? repo : `https://${host}/${repo}.git`;
  return [
    `(set -e; copy=$(mktemp -d); trap 'rm -rf "$copy"' EXIT; cd "$copy"; git init -q`,
    `git fetch -q --depth 1 -- ${quote(url)} ${quote(ref)}; git checkout -q FETCH_HEAD`,
    `mkdir -p -- "$(dirname -- ${quote(path)})"; cp -aT -- ./${quote(subpath)} ${quote(path)})`,
  ].join("; ");
}

/** @throws {SandboxUnsupportedFeatureError} before anything is created */
function refuseUnsupported(manifest: sdk.Manifest): void {
  const { users, groups, extraPathGrants } = manifest;
  if (users.length > 0 || groups.length > 0) throw unsupported(UNSUPPORTED.users);
  if (extraPathGrants.some(({ hostPath, readOnly }) => hostPath !== undefined || readOnly))
    throw unsupported(UNSUPPORTED.grants);
  for (const { logicalPath: path, entry } of manifest.iterEntries()) {
    const { type, group } = entry;
    if (type !== "dir" && type !== "file" && type !== "git_repo")
      throw unsupported(UNSUPPORTED.entryType(type, path));
    if (group) throw unsupported(UNSUPPORTED.group(path));
  }
}

function refuseUser(runAs: string | undefined): void {
  if (runAs !== undefined) throw unsupported(UNSUPPORTED.runAs(runAs));
}

function unsupported(message: string): sdk.SandboxUnsupportedFeatureError {
  return new sdk.SandboxUnsupportedFeatureError(message);
}
