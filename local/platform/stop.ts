/** The request by which `npm start` and `npm run dev:docker` make the Worker save all workspaces before they stop the server. */
import { actorOf } from "../../src/container/actor.ts";
import type { Sandbox } from "../../src/index.ts";
import type { SandboxNamespaces } from "../../src/shared/config.ts";
import { waitAtMost } from "../../src/shared/timers.ts";
import { EngineClient, type LocalEnv } from "./engine-client.ts";
import { SECRET_HEADER, STOP_MS, STOP_PATH } from "./engine-protocol.ts";

export function isStop(request: Request, known: string): boolean {
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

/** The response to all later requests, because their changes could not be saved. */
export function refuseToServe(): Response {
  return new Response("The server is stopping.\n", { status: 503, headers: { "retry-after": "10" } });
}

export async function runningActors(env: LocalEnv): Promise<string[]> {
  return ((await new EngineClient(env).call("GET", "/actors")) as { actors: string[] }).actors;
}

export async function saveAll(env: SandboxNamespaces, actors: readonly string[]): Promise<Response> {
  const saved = await Promise.all(
    actors.map(async (id) => {
      const actor = actorOf<Sandbox>(env, id);
      return (await waitAtMost(STOP_MS, actor.saveToStop()).catch(() => false)) === true;
    }),
  );
  return Response.json({ unsaved: saved.filter((isSaved) => !isSaved).length });
}
