/** Handles the request that sandboxd sends before its container ends: see `SERVER_HOST` in protocol.ts. */
import { ENDING_PATH, TOKEN_HEADER } from "../../container/sandboxd/protocol.ts";
import type { Env } from "../shared/config.ts";
import { actorOf } from "./actor.ts";

export async function serveEnding(request: Request, env: Env, containerID: string): Promise<Response> {
  if (request.method !== "POST" || new URL(request.url).pathname !== ENDING_PATH)
    return new Response(null, { status: 404 });
  const token = request.headers.get(TOKEN_HEADER) ?? "";
  const isEnding = await actorOf(env, containerID).containerEnding(token);
  return new Response(null, { status: isEnding ? 204 : 404 });
}
