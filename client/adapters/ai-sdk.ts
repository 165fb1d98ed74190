/** A sandbox as the session of the AI SDK: `generateText({ experimental_sandbox: aiSandbox(sandbox), ... })`. */
import type {
  Experimental_SandboxProcess as SandboxProcess,
  Experimental_SandboxSession as SandboxSession,
} from "ai";
import { SandboxError } from "../errors.ts";
import { DESCRIPTION, NO_STANDARD_INPUT, wrongEncoding } from "../texts.ts";
import type { Sandbox } from "../sandbox.ts";
import { Sessions, quote } from "./shell-sessions.ts";

type SpawnOptions = Parameters<SandboxSession["run"]>[0] & { stdin?: boolean };

/** The AI SDK's session, with the members for ports that `@ai-sdk/harness` expects. */
export interface AISandbox extends SandboxSession {
  readonly ports: readonly number[];
  getPortEndpoint(options: { port: number; protocol?: "http" | "https" | "ws" }): Promise<{ url: string }>;
}

export interface AISandboxOptions {
  /** The ports that the session lists in `ports`; its `getPortEndpoint` accepts any port. */
  ports?: readonly number[];
}

export function aiSandbox(sandbox: Sandbox, { ports = [] }: AISandboxOptions = {}): AISandbox {
  const { files } = sandbox;
  const sessions = new Sessions(sandbox, "ai-sdk");
  const readBinaryFile: SandboxSession["readBinaryFile"] = ({ path }) =>
    unlessMissing(() => files.read(path));
  return {
    description: DESCRIPTION,
    readFile: ({ path, abortSignal: signal }) => unlessMissing(() => files.download(path, { signal })),
    readBinaryFile,
    async readTextFile({ encoding, startLine = 1, endLine, ...options }) {
      const bytes = await readBinaryFile(options);
      if (bytes === null) return null;
      const text = new TextDecoder(encoding).decode(bytes);
      if (startLine === 1 && endLine === undefined) return text;
      return text
        .split(/(?<=\n)/)
        .slice(startLine - 1, endLine)
        .join("");
    },
    writeFile: async ({ path, content }) => void (await files.write(path, content)),
    writeBinaryFile: async ({ path, content }) => void (await files.write(path, content)),
    async writeTextFile({ path, content, encoding = "utf-8" }) {
      if (!/^utf-?8$/i.test(encoding)) throw new SandboxError("invalid_argument", ...wrongEncoding(encoding));
      await files.write(path, content);
    },
    async stat({ path }) {
      // With -L, stat describes the target of a link.
      const { exitCode, stdout } = await sessions.run(`stat -L -c '%s %F' -- ${quote(path)}`);
      if (exitCode !== 0) return null;
      const [, size = "0", kind = ""] = /^(\d+) (.*)$/m.exec(stdout) ?? [];
      const type = kind.endsWith("file") ? "file" : kind === "directory" ? "directory" : "other";
      return { type, size: Number(size) };
    },
    async listDirectory({ path }) {
      const entries = await unlessMissing(() => files.list(path));
      return entries && entries.map(({ path: name, type }) => ({ name, type }));
    },
    deleteFile: async ({ path }) => (await unlessMissing(() => files.remove(path).then(() => true))) ?? false,
    async run({ command, workingDirectory, env, abortSignal: signal }) {
      const run = await sessions.run(command, { cwd: workingDirectory, env, signal });
      return { exitCode: run.exitCode, stdout: run.stdout, stderr: run.stderr };
    },
    spawn,
    ports,
    async getPortEndpoint({ port, protocol }) {
      const { url } = await sandbox.expose(port);
      // A local server has no TLS, whichever protocol was requested.
      return { url: protocol === "ws" ? url.replace(/^http/, "ws") : url };
    },
  };

  function spawn(options: SpawnOptions & { stdin: true }): Promise<never>;
  function spawn(options: SpawnOptions): Promise<SandboxProcess>;
  async function spawn({ command, workingDirectory, env, abortSignal, stdin }: SpawnOptions) {
    if (stdin) throw new SandboxError("invalid_argument", ...NO_STANDARD_INPUT);
    const killed = new AbortController();
    const signal = abortSignal ? AbortSignal.any([abortSignal, killed.signal]) : killed.signal;
    const stdout = byteStream();
    const stderr = byteStream();
    const running = sessions
      .run(command, {
        cwd: workingDirectory,
        env,
        signal,
        maxOutput: 0,
        onOutput: ({ stream, text }) => (stream === "stdout" ? stdout : stderr).send(text),
      })
      .finally(() => {
        stdout.end();
        stderr.end();
      });
    const ended = running.then(
      ({ exitCode }) => ({ exitCode }),
      (error: unknown) => {
        // The exit status after SIGKILL, as in shells.
        if (killed.signal.aborted) return { exitCode: 137 };
        throw error;
      },
    );
    ended.catch(() => undefined);
    return {
      stdout: stdout.stream,
      stderr: stderr.stream,
      wait: () => ended,
      async kill() {
        killed.abort();
        await ended.catch(() => undefined);
      },
    };
  }
}

async function unlessMissing<T>(work: () => Promise<T>): Promise<T | null> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof SandboxError && error.code === "not_found") return null;
    throw error;
  }
}

/** A stream of output as bytes. After the reader has cancelled it, `send` and `end` do nothing. */
function byteStream() {
  let controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  const stream = new ReadableStream<Uint8Array>({
    start: (given) => void (controller = given),
    cancel: () => void (controller = undefined),
  });
  const encoder = new TextEncoder();
  return {
    stream,
    send: (text: string) => controller?.enqueue(encoder.encode(text)),
    end: () => controller?.close(),
  };
}
