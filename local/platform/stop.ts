/** The request by which `npm start` has all workspaces saved before it ends the server. */
import type { Sandbox } from "../../src/index.ts";
import { within } from "../../src/shared/within.ts";
import { EngineClient, type LocalEnv } from "./client.ts";
import { SECRET_HEADER, STOP_MS, STOP_PATH } from "./protocol.ts";

interface Sandboxes {
  Sandbox: DurableObjectNamespace;
}

/** Whether it is that request, from whoever started the engine. */
export function isStop(request: Request, env: LocalEnv): boolean {
  const { pathname } = new URL(request.url);
  const given = new TextEncoder().encode(request.headers.get(SECRET_HEADER) ?? "");
  const secret = new TextEncoder().encode(env.LOCAL_ENGINE_SECRET);
  return (
    request.method === "POST" &&
    pathname === STOP_PATH &&
    given.byteLength === secret.byteLength &&
    crypto.subtle.timingSafeEqual(given, secret)
  );
}

/** Saves the workspaces of all sandboxes that run. Answers how many could not be saved in time. */
export async function saveAll(env: LocalEnv & Sandboxes): Promise<Response> {
  const sandboxes = env.Sandbox as DurableObjectNamespace<Sandbox>;
  const { actors } = (await new EngineClient(env).call("GET", "/actors")) as { actors: string[] };
  const saved = await Promise.all(
    actors.map(async (actor) => {
      const stub = sandboxes.get(sandboxes.idFromString(actor));
      return (await within(STOP_MS, stub.saveToStop()).catch(() => false)) === true;
    }),
  );
  return Response.json({ unsaved: saved.filter((isSaved) => !isSaved).length });
}
