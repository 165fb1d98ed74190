import { sandboxError, validationError, type ErrorCode } from "./errors.ts";
import { type RunOptions, type RunResult } from "./shell.ts";
import { redactURLs, shellQuote } from "./text.ts";

const DEFAULT_TIMEOUT_MS = 600_000;
const MAX_URL_LENGTH = 2048;
/** Seconds git may take to end after its timeout. */
const KILL_AFTER_SECONDS = 5;
/** The exit code of `timeout`. */
const TIMED_OUT = 124;

export interface CheckoutOptions {
  branch?: string;
  targetDir?: string;
  depth?: number;
  timeoutMs?: number;
}

export type Execute = (command: string, options?: RunOptions) => Promise<RunResult>;

/**
 * Clones a repository, by default into `<workspace>/<its name>`, and says which branch that is. Errors:
 * INVALID_GIT_URL, VALIDATION_FAILED, GIT_NETWORK_ERROR for a timeout, and what git's words tell.
 */
export async function checkout(
  repoURL: string,
  options: CheckoutOptions,
  execute: Execute,
  workspace: string,
): Promise<{ targetDir: string; branch: string }> {
  const shown = redactURLs(repoURL);
  const problem = urlProblem(repoURL);
  if (problem) {
    throw sandboxError("INVALID_GIT_URL", `Invalid Git URL '${shown}': ${problem}`, {
      validationErrors: [{ field: "repoUrl", message: problem, code: "INVALID_GIT_URL" }],
    });
  }
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  if (!Number.isInteger(timeoutMs) || timeoutMs <= 0) {
    const reason = "Clone timeout must be a positive integer representing milliseconds";
    throw validationError("timeoutMs", `Invalid clone timeout '${timeoutMs}'. ${reason}`, reason);
  }
  const targetDir = options.targetDir || `${workspace}/${repositoryName(repoURL)}`;

  const words = ["timeout", "-k", String(KILL_AFTER_SECONDS), String(timeoutMs / 1000), "git"];
  // A transfer that stalls for half a minute fails by itself.
  words.push("-c", "http.lowSpeedLimit=1024", "-c", "http.lowSpeedTime=30", "clone", "--filter=blob:none");
  if (options.branch) words.push("--branch", options.branch);
  if (options.depth !== undefined) words.push("--depth", String(options.depth));
  words.push("--", repoURL, targetDir);

  const clone = await execute(words.map(shellQuote).join(" "));
  if (clone.exitCode !== 0) {
    const stderr = redactURLs(clone.stderr);
    const timedOut = clone.exitCode === TIMED_OUT;
    const message = timedOut
      ? `Git clone timed out after ${timeoutMs / 1000} seconds for '${shown}'`
      : `Failed to clone repository '${shown}': ${stderr || `exit code ${clone.exitCode}`}`;
    throw sandboxError(errorCodeOf(clone.exitCode, stderr), message, {
      repository: shown,
      targetDir,
      exitCode: clone.exitCode,
      stderr: timedOut ? "Operation timed out" : stderr,
    });
  }
  const head = await execute(`git -C ${shellQuote(targetDir)} branch --show-current`);
  return { targetDir, branch: (head.exitCode === 0 && head.stdout.trim()) || options.branch || "unknown" };
}

function urlProblem(url: unknown): string | undefined {
  if (typeof url !== "string" || url.trim() === "") return "Git URL must be a non-empty string";
  if (url.length > MAX_URL_LENGTH) return `Git URL too long (max ${MAX_URL_LENGTH} characters)`;
  if (url.includes("\0")) return "Git URL contains null bytes";
  return undefined;
}

function repositoryName(url: string): string {
  const last = url
    .split(/[?#]/, 1)[0]
    ?.split(/[:/]/)
    .findLast((part) => part !== "");
  return last?.replace(/\.git$/, "") || "repository";
}

/** The container's reading of git's messages, with its order of precedence. */
function errorCodeOf(exitCode: number, stderr: string): ErrorCode {
  const text = stderr.toLowerCase();
  if (exitCode === TIMED_OUT) return "GIT_NETWORK_ERROR";
  if (exitCode === 128) {
    return text.includes("repository not found") ? "GIT_REPOSITORY_NOT_FOUND" : "GIT_OPERATION_FAILED";
  }
  if (/permission denied|access denied/.test(text)) return "GIT_AUTH_FAILED";
  if (/not found|does not exist/.test(text)) return "GIT_REPOSITORY_NOT_FOUND";
  if (text.includes("already exists")) return "GIT_CLONE_FAILED";
  if (/did not match|pathspec/.test(text)) return "GIT_BRANCH_NOT_FOUND";
  if (/authentication|credentials/.test(text)) return "GIT_AUTH_FAILED";
  return "GIT_CLONE_FAILED";
}
