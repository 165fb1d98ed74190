/**
 * An orderly stop of the container, which init.pl requests after SIGTERM. sandboxd starts nothing new and asks the server to save
 * the workspace. Then it ends the commands, and asks for a save of their last changes. init.pl limits the total time.
 */
import { request } from "node:http";
import { setTimeout as pause } from "node:timers/promises";
import type { FileHandlers } from "./file-handlers.ts";
import { ENDING_PATH, SERVER_HOST, TOKEN_HEADER } from "./protocol.ts";
import type { RunTable } from "./run-table.ts";
import { ownToken } from "./actor-token.ts";

const SAVE_MS = 240_000;
const TRIES = 3;
const PAUSE_MS = 500;

export async function endInOrder(runs: RunTable, files: FileHandlers): Promise<void> {
  runs.refuse();
  await files.refuse();
  await askToSave();
  if (await runs.end()) await askToSave();
}

/** Asks over HTTP, because the platform routes this request to the Worker. */
async function askToSave(): Promise<void> {
  for (let attempt = 0; attempt < TRIES; attempt++) {
    if (await isSaved().catch(() => false)) return;
    await pause(PAUSE_MS);
  }
}

function isSaved(): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(SAVE_MS);
    const headers = { [TOKEN_HEADER]: ownToken() ?? "" };
    const stopRequest = request({
      host: SERVER_HOST,
      path: ENDING_PATH,
      method: "POST",
      headers,
      agent: false,
      signal,
    });
    stopRequest.once("error", reject).once("response", (response) => {
      response.destroy();
      resolve(response.statusCode === 204);
    });
    stopRequest.end();
  });
}
