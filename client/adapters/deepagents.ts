/** A sandbox as the backend of an agent of deepagents: `createDeepAgent({ backend: deepAgentsBackend(sandbox) })`. */
import {
  BaseSandbox,
  type ExecuteResponse,
  type FileDownloadResponse,
  type FileOperationError,
  type FileUploadResponse,
} from "deepagents";
import { SandboxError } from "../errors.ts";
import type { Sandbox } from "../sandbox.ts";
import { Sessions } from "./shell-sessions.ts";

export interface DeepAgentsOptions {
  /** The time limit of the agent's commands, in seconds. 1,800 by default. */
  timeoutSeconds?: number;
}

export function deepAgentsBackend(sandbox: Sandbox, options?: DeepAgentsOptions): BaseSandbox {
  return new Backend(sandbox, options);
}

class Backend extends BaseSandbox {
  readonly id: string;
  readonly #sandbox: Sandbox;
  readonly #sessions: Sessions;
  readonly #timeoutSeconds: number;

  constructor(sandbox: Sandbox, { timeoutSeconds = 1800 }: DeepAgentsOptions = {}) {
    super();
    this.id = sandbox.name;
    this.#sandbox = sandbox;
    this.#sessions = new Sessions(sandbox, "deepagents");
    this.#timeoutSeconds = timeoutSeconds;
  }

  async execute(command: string): Promise<ExecuteResponse> {
    let output = "";
    const { exitCode, isTruncated: truncated } = await this.#sessions.run(command, {
      timeoutSeconds: this.#timeoutSeconds,
      onOutput: ({ text }) => (output += text),
    });
    return { output, exitCode, truncated };
  }

  uploadFiles(files: [path: string, content: Uint8Array][]): Promise<FileUploadResponse[]> {
    return Promise.all(
      files.map(async ([path, content]) => {
        const error = await failureOf(() => this.#sandbox.files.write(path, content));
        return { path, error };
      }),
    );
  }

  downloadFiles(paths: string[]): Promise<FileDownloadResponse[]> {
    return Promise.all(
      paths.map(async (path) => {
        let content: Uint8Array | null = null;
        const error = await failureOf(async () => (content = await this.#sandbox.files.read(path)));
        return { path, content, error };
      }),
    );
  }
}

const ERRORS: Record<string, FileOperationError> = {
  not_found: "file_not_found",
  is_directory: "is_directory",
  permission_denied: "permission_denied",
  forbidden: "permission_denied",
  invalid_argument: "invalid_path",
  not_directory: "invalid_path",
  // The sandbox's file system refused the operation, for example for a file in /proc.
  file_system: "invalid_path",
  too_large: "invalid_path",
};

/**
 * Returns the word that deepagents uses for the failure; null if the work succeeded.
 * @throws all errors without an entry in `ERRORS`
 */
async function failureOf(work: () => Promise<unknown>): Promise<FileOperationError | null> {
  try {
    await work();
    return null;
  } catch (error) {
    const word = error instanceof SandboxError ? ERRORS[error.code] : undefined;
    if (word === undefined) throw error;
    return word;
  }
}
