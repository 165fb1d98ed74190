/** The hooks of each test file that runs in workerd. */
import { listDurableObjectIds, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterAll, afterEach, aroundEach, vi } from "vitest";
import { SECRET_HEADER } from "../../local/platform/engine-protocol.ts";
import { withTestTimers } from "./test-timers.ts";

aroundEach(withTestTimers);

/** A test's fake timers end with the test. */
afterEach(() => void vi.useRealTimers());

/**
 * Ends the file's sandboxes. Otherwise the sandboxes of all files would run until the last test has ended, with 150 MB of memory
 * each.
 */
afterAll(async () => {
  const headers = { [SECRET_HEADER]: env.LOCAL_ENGINE_SECRET };
  const response = await fetch(`${env.LOCAL_ENGINE_URL}/actors`, { headers });
  const { actors } = await response.json<{ actors: string[] }>();
  // Other workerds use the same engine.
  const own = await listDurableObjectIds(env.Sandbox);
  const running = own.filter((id) => actors.includes(id.toString())).map((id) => env.Sandbox.get(id));
  await Promise.all(
    running.map((actor) => runInDurableObject(actor, (_sandbox, { container }) => container?.destroy())),
  );
});
