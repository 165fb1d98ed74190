import { SECRET_HEADER, STOP_MS, STOP_PATH } from "../local/platform/engine-protocol.ts";
import { SAVING } from "./texts.ts";

/** If the save takes longer than this, in milliseconds, the user sees that it is under way. */
const PROGRESS_AFTER_MS = 1000;

/** How long the engine may take to end previews, in milliseconds. */
const END_PREVIEWS_MS = 5000;

/**
 * Resolves when all workspaces are saved, `signal` aborts, or the time is up. Prints how many may be unsaved.
 * @param url the server's MCP endpoint
 * @param engine the engine's address, if there is an engine. Previews end first, because they could delay the saves
 */
export async function saveWorkspaces(
  url: string,
  secret: string,
  signal: AbortSignal,
  print: (line: string) => void,
  engine?: string,
): Promise<void> {
  const progress = setTimeout(() => print(SAVING.started), PROGRESS_AFTER_MS);
  const request = async (method: string, address: URL, limitMs: number): Promise<unknown> => {
    const headers = { [SECRET_HEADER]: secret };
    const limit = AbortSignal.any([signal, AbortSignal.timeout(limitMs)]);
    return await (await fetch(address, { method, headers, signal: limit, redirect: "error" })).json();
  };
  let running: number | undefined;
  try {
    if (engine !== undefined) {
      const ended = request("DELETE", new URL("/previews", engine), END_PREVIEWS_MS).catch(() => undefined);
      running = ((await ended) as { running: number } | undefined)?.running;
    }
    const saved = await request("POST", new URL(STOP_PATH, url), STOP_MS + PROGRESS_AFTER_MS);
    const { unsaved } = saved as { unsaved: number };
    if (unsaved > 0) print(SAVING.unsaved(unsaved));
  } catch {
    if (signal.aborted) print(SAVING.aborted);
    else if (running !== 0) print(SAVING.unconfirmed(running));
  } finally {
    clearTimeout(progress);
  }
}
