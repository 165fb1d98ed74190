/** `npm start` and `npm run dev:docker` make the Worker save all workspaces before they stop the server. */
import { actorOf } from "../../src/container/actor.ts";
import type { Sandbox } from "../../src/index.ts";
import type { SandboxNamespaces } from "../../src/shared/config.ts";
import { countdown, pause, waitAtMost } from "../../src/shared/timers.ts";
import { answerWaitingCalls } from "../../src/shared/waiting-calls.ts";
import { EngineClient, type LocalEnv } from "./engine-client.ts";
import { SECRET_HEADER, STOP_MS, STOP_PATH } from "./engine-protocol.ts";

/** How long the answers of waiting calls may take to reach their sockets, in milliseconds. Then `npm start` ends workerd. */
const ANSWERS_MS = 500;

let isStopping = false;

/**
 * Serves requests until one stops the server: that one saves all workspaces, then answers the calls that still wait. Later ones are
 * refused, because their changes could not be saved.
 * @param secret of the request that stops the server
 * @param listRunning the ids of the actors of the running sandboxes
 */
export async function serveUntilStop(
  request: Request,
  secret: string,
  env: SandboxNamespaces,
  listRunning: () => Promise<Iterable<string>>,
  serve: () => Promise<Response>,
): Promise<Response> {
  if (isStop(request, secret)) {
    isStopping = true;
    return beginResponse(
      saveAll(env, listRunning).finally(() => (answerWaitingCalls() ? pause(ANSWERS_MS) : undefined)),
    );
  }
  if (!isStopping) return await serve();
  return new Response("The server is stopping.\n", { status: 503, headers: { "retry-after": "10" } });
}

/** Responds before the saves end, so that `npm start` knows that the Worker works. */
function beginResponse(saved: Promise<Response>): Response {
  const { readable, writable } = new TransformStream();
  const sent = saved.then(async ({ body }) => await body?.pipeTo(writable));
  sent.catch(async (error: unknown) => await writable.abort(error));
  return new Response(readable);
}

function isStop(request: Request, known: string): boolean {
  const header = request.headers.get(SECRET_HEADER);
  if (header === null) return false;
  const givenBytes = new TextEncoder().encode(header);
  const knownBytes = new TextEncoder().encode(known);
  return (
    request.method === "POST" &&
    knownBytes.byteLength > 0 &&
    givenBytes.byteLength === knownBytes.byteLength &&
    crypto.subtle.timingSafeEqual(givenBytes, knownBytes) &&
    // A request with two Host headers has an invalid URL.
    URL.parse(request.url)?.pathname === STOP_PATH
  );
}

export async function runningActors(env: LocalEnv): Promise<string[]> {
  return ((await new EngineClient(env).call("GET", "/actors")) as { actors: string[] }).actors;
}

/**
 * How long a round waits for its saves. Those that take longer go on. Without this limit, a sandbox whose save never ended prevented
 * the saves of what calls changed in others meanwhile.
 */
const ROUND_MS = 1000;

/**
 * Saves until no running sandbox has unsaved changes. Calls that began before the stop continue meanwhile: they may change files, and
 * start sandboxes.
 * @param ms how long to try
 */
export async function saveAll(
  env: SandboxNamespaces,
  listRunning: () => Promise<Iterable<string>>,
  ms = STOP_MS,
): Promise<Response> {
  const leftMs = countdown(ms);
  const saved = new Map<string, boolean>();
  const saving = new Map<string, Promise<void>>();
  const save = async (id: string) => {
    const isSaved = actorOf<Sandbox>(env, id).saveToStop();
    saved.set(id, (await waitAtMost(Math.max(0, leftMs()), isSaved).catch(() => false)) === true);
    saving.delete(id);
  };
  const asking = new Map<string, Promise<boolean>>();
  /** Undefined if the actor has not responded yet, as on a busy machine. A save that failed is not repeated. */
  const isDone = async (id: string) => {
    if (!saved.has(id)) return false;
    if (saved.get(id) === false) return true;
    const asked = asking.get(id) ?? actorOf<Sandbox>(env, id).isSaved();
    asking.set(id, asked);
    const isSaved = await waitAtMost(ROUND_MS, asked).catch(() => false);
    if (isSaved !== undefined) asking.delete(id);
    return isSaved;
  };
  let unsaved = [...(await listRunning())];
  let changed = unsaved;
  while (unsaved.length > 0 && leftMs() > 0) {
    for (const id of changed) if (!saving.has(id)) saving.set(id, save(id));
    await waitAtMost(Math.min(ROUND_MS, leftMs()), Promise.all(saving.values()));
    const running = [...(await listRunning())];
    const areDone = await Promise.all(running.map(isDone));
    unsaved = running.filter((_, index) => areDone[index] !== true);
    changed = running.filter((_, index) => areDone[index] === false);
  }
  for (const id of unsaved) saved.set(id, false);
  return Response.json({ unsaved: [...saved.values()].filter((isSaved) => !isSaved).length });
}
