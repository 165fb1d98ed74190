/** Has the workspaces of all sandboxes saved before the server ends. */
import { SECRET_HEADER, STOP_MS, STOP_PATH } from "../local/platform/protocol.ts";

/** How long that goes on without a word, milliseconds. */
const QUIET_MS = 1000;

/**
 * Resolves when all are saved, or `signal` aborts, or the time is over.
 * @param url of the server's MCP endpoint
 */
export async function saveWorkspaces(
  url: string,
  secret: string,
  signal: AbortSignal,
  say: (line: string) => void,
): Promise<void> {
  const words = setTimeout(() => say("Saving workspaces; another Ctrl-C stops at once."), QUIET_MS);
  try {
    const response = await fetch(new URL(STOP_PATH, url), {
      method: "POST",
      headers: { [SECRET_HEADER]: secret },
      signal: AbortSignal.any([signal, AbortSignal.timeout(STOP_MS + QUIET_MS)]),
    });
    const { unsaved } = (await response.json()) as { unsaved: number };
    if (unsaved > 0) say(`Workspaces that could not be saved: ${unsaved}. They keep what was saved before.`);
  } catch {
    // Where the Worker or the engine has died, nothing can be saved.
    if (signal.aborted) say("Stopped before all workspaces were saved.");
  } finally {
    clearTimeout(words);
  }
}
