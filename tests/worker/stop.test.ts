import { env } from "cloudflare:workers";
import { expect, it } from "vitest";
import { SECRET_HEADER, STOP_PATH } from "../../local/platform/engine-protocol.ts";
import { serveUntilStop } from "../../local/platform/stop.ts";

it("the request that stops the server gets a response before all workspaces are saved", async () => {
  const secret = "a-secret";
  const listed = Promise.withResolvers<string[]>();
  const stop = new Request(`http://localhost${STOP_PATH}`, {
    method: "POST",
    headers: { [SECRET_HEADER]: secret },
  });
  const response = await serveUntilStop(
    stop,
    secret,
    env,
    () => listed.promise,
    () => Promise.reject(new Error("not a stop")),
  );
  expect(response.status).toBe(200);
  listed.resolve([]);
  expect(await response.json()).toEqual({ unsaved: 0 });
});
