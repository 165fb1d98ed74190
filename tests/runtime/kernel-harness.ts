/** Creates kernels as the actor does: over the control API, with our prelude loaded. */
import type { KernelProcess } from "../../container/sandboxd/protocol.ts";
import type { Language } from "../../src/shared/languages.ts";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  type CodeStream,
  type RunDocument,
  loadCell,
  parseDocument,
  parseHello,
  runCell,
} from "../../src/container/kernels/kernel-protocol.ts";
import { doLater } from "../setup/end-later.ts";
import { statusNumber } from "../setup/processes.ts";
import { type Runtime, startRuntime } from "./runtime.ts";

const PRELUDE = fileURLToPath(new URL("../../container/kernel", import.meta.url));

/** Debian's Python can import Debian's packages. Another Python may come before it in PATH. */
const PATH = `/usr/bin:${process.env.PATH}`;

/** The output of one execution, as the control API reports it. */
interface ExecutionOutput {
  stdout: string;
  stderr: string;
  results: Record<string, unknown>[];
  error?: { name: string; message: string; traceback: string[] };
}

/** The output of a stream, in the form that tests read. */
type ReadStream = CodeStream & { text?: string | undefined };

type ReadDocument = Omit<RunDocument, "stdout" | "stderr"> & {
  stdout: ReadStream;
  stderr: ReadStream;
};

function read({ output, ...stream }: CodeStream): ReadStream {
  return { ...stream, text: output && new TextDecoder().decode(output) };
}

/**
 * Creates a directory with the same path in the sandbox under test, because a remote sandbox shares only this
 * directory with this machine. It is removed later.
 */
export function sharedDirectory(): string {
  const directory = mkdtempSync(join(process.env.SANDBOX_RUNTIME_SHARED ?? tmpdir(), "kernel-"));
  doLater(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** A control server, and a directory in place of `/var/lib/sandbox-mcp/runs`. */
export class Lab {
  readonly runtime: Runtime;
  readonly runs = sharedDirectory();
  count = 0;

  constructor(runtime: Runtime) {
    this.runtime = runtime;
  }

  /** @param programs a directory at the front of PATH, for example with another Python */
  static async open(programs?: string): Promise<Lab> {
    const path = programs === undefined ? PATH : `${programs}:${PATH}`;
    return new Lab(await startRuntime(["/usr/bin/env", `PATH=${path}`]));
  }

  async kernel(language: Language): Promise<TestKernel> {
    const { id } = await this.runtime.api.interpreter.createCodeContext({ language });
    return await this.loadPrelude(id, language);
  }

  /** Loads the prelude into an existing kernel. */
  async loadPrelude(id: string, language: Language): Promise<TestKernel> {
    const { stdout } = await this.execute(id, loadCell(language, PRELUDE));
    const process = parseHello(stdout);
    if (!process) throw new Error(`the prelude did not respond: ${stdout}`);
    return new TestKernel(this, id, language, process);
  }

  async execute(contextID: string, code: string): Promise<ExecutionOutput> {
    const reported: ExecutionOutput = { stdout: "", stderr: "", results: [] };
    await this.runtime.api.interpreter.runCodeStream(contextID, code, undefined, {
      onStdout: ({ text }) => void (reported.stdout += text),
      onStderr: ({ text }) => void (reported.stderr += text),
      onResult: (result) => void reported.results.push(result),
      onError: (error) => void (reported.error = error),
    });
    return reported;
  }

  async close(): Promise<void> {
    await this.runtime.stop();
  }
}

export class TestKernel {
  readonly #lab: Lab;
  readonly contextID: string;
  readonly language: Language;
  readonly process: KernelProcess;

  constructor(lab: Lab, contextID: string, language: Language, process: KernelProcess) {
    this.#lab = lab;
    this.contextID = contextID;
    this.language = language;
    this.process = process;
  }

  /** Runs code and returns its document: the JSON in which the prelude reports a run. Fails if the kernel sends anything else. */
  async run(
    code: string,
    { cap = 100 * 1024 * 1024, onStart }: { cap?: number; onStart?: (runID: string) => void } = {},
  ): Promise<ReadDocument> {
    const runID = `test${++this.#lab.count}`;
    const cell = runCell(this.language, runID, { code, logCapBytes: cap }, this.#lab.runs);
    const reporting = this.#lab.execute(this.contextID, cell);
    onStart?.(runID);
    const reported = await reporting;
    const parsed = parseDocument(reported.stdout, runID);
    if (!parsed || reported.stderr !== "" || reported.error || reported.results.length > 0) {
      throw new Error(`not just a document: ${JSON.stringify(reported).slice(0, 2000)}`);
    }
    return { ...parsed, stdout: read(parsed.stdout), stderr: read(parsed.stderr) };
  }

  async value(code: string): Promise<string | undefined> {
    const { results, error } = await this.run(code);
    if (error) throw new Error(error.traceback.join("\n"));
    return results.at(-1)?.text;
  }

  file(runID: string, stream: "out" | "err"): string {
    const path = join(this.#lab.runs, `${runID}.${stream}`);
    return existsSync(path) ? readFileSync(path, "utf8") : "";
  }

  signal(signal: NodeJS.Signals): void {
    process.kill(this.process.pid, signal);
  }

  get peakBytes(): number {
    return statusNumber(this.process.pid, "VmHWM") * 1024;
  }
}
