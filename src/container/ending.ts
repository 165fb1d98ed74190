/** What sandboxd asks of its sandbox's actor before the container ends, through the egress: see `SERVER_HOST` of the protocol. */
import { ENDING_PATH } from "../../container/sandboxd/protocol.ts";
import type { Env } from "../shared/config.ts";
import { actorOf } from "./actor.ts";

/** As the SDK calls it. User code can ask too, which has its own workspace saved. */
export async function serveEnding(
  request: Request,
  env: Env,
  { containerId }: { containerId: string },
): Promise<Response> {
  if (request.method !== "POST" || new URL(request.url).pathname !== ENDING_PATH)
    return new Response(null, { status: 404 });
  await actorOf(env, containerId).containerEnding();
  return new Response(null, { status: 204 });
}
