import { once } from "node:events";
import { type IncomingMessage, request } from "node:http";
import { json } from "node:stream/consumers";
import { withShortPath } from "../local/engine/host-files.ts";
import { SECRET_HEADER, STOP_MS, STOP_PATH, STOP_RESPONSE_MS } from "../local/platform/engine-protocol.ts";
import { SAVING } from "./texts.ts";

/** If the save takes longer than this, in milliseconds, the user sees that it is under way. */
const PROGRESS_AFTER_MS = 1000;

/** How long the engine may take to end previews, in milliseconds. */
const END_PREVIEWS_MS = 5000;

/**
 * Resolves when all workspaces are saved, `signal` aborts, or the time is up. Prints how many may be unsaved.
 * @param url the server's MCP endpoint
 * @param engine the engine's socket, if there is an engine. Previews end first, because they could delay the saves
 */
export async function saveWorkspaces(
  url: string,
  secret: string,
  signal: AbortSignal,
  print: (line: string) => void,
  engine?: string,
): Promise<void> {
  const progress = setTimeout(() => print(SAVING.started), PROGRESS_AFTER_MS);
  const headers = { [SECRET_HEADER]: secret };
  const within = (ms: number) => AbortSignal.any([signal, AbortSignal.timeout(ms)]);
  let running: number | undefined;
  try {
    if (engine !== undefined) {
      const ended = endPreviews(engine, headers, within(END_PREVIEWS_MS)).catch(() => undefined);
      running = (await ended)?.running;
    }
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(), STOP_RESPONSE_MS);
    const limit = AbortSignal.any([within(STOP_MS + PROGRESS_AFTER_MS), late.signal]);
    const init = { method: "POST", headers, signal: limit, redirect: "error" } as const;
    const response = await fetch(new URL(STOP_PATH, url), init).finally(() => clearTimeout(timer));
    const { unsaved } = (await response.json()) as { unsaved: number };
    if (unsaved > 0) print(SAVING.unsaved(unsaved));
  } catch {
    if (signal.aborted) print(SAVING.aborted);
    else if (running !== 0) print(SAVING.unconfirmed(running));
  } finally {
    clearTimeout(progress);
  }
}

async function endPreviews(
  socket: string,
  headers: Record<string, string>,
  signal: AbortSignal,
): Promise<{ running: number }> {
  return await withShortPath(socket, async (socketPath) => {
    const asking = request({ socketPath, method: "DELETE", path: "/previews", headers, signal }).end();
    const [response] = (await once(asking, "response")) as [IncomingMessage];
    return (await json(response)) as { running: number };
  });
}
