/**
 * The end of the container in order, which init.pl asks for after SIGTERM: nothing new begins, the workspace is saved, running commands are told, and what
 * they changed then is saved too. init.pl bounds the time of all this.
 */
import { request } from "node:http";
import { setTimeout as pause } from "node:timers/promises";
import type { FileHandlers } from "./file-handlers.ts";
import { ENDING_PATH, SERVER_HOST, TOKEN_HEADER } from "./protocol.ts";
import type { RunTable } from "./run-table.ts";
import { ownToken } from "./actor-token.ts";

/** How long one save may take, milliseconds. */
const SAVE_MS = 240_000;

/** How often the server is asked, and the pause between two tries, milliseconds: where it is not reachable nothing can be saved. */
const TRIES = 3;
const PAUSE_MS = 500;

export async function endInOrder(runs: RunTable, files: FileHandlers): Promise<void> {
  runs.refuse();
  await files.refuse();
  await askToSave();
  if (await runs.end()) await askToSave();
}

/** Asks the sandbox's actor to save, and waits until it has. The request goes to the Worker by the platform's interception. */
async function askToSave(): Promise<void> {
  for (let attempt = 0; attempt < TRIES; attempt++) {
    if (await isSaved().catch(() => false)) return;
    await pause(PAUSE_MS);
  }
}

function isSaved(): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(SAVE_MS);
    // The server takes it from nobody else in the sandbox.
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
