/** The soak and the benchmark start Workers at any free port, while other programs of the machine take free ports too. */
import { once } from "node:events";
import { createServer, Server } from "node:net";
import { join } from "node:path";
import { expect, it } from "vitest";
import { CONFIGS, TOKEN, serve, startEngine } from "../../bench/bed.ts";
import { freePort } from "../../cli/lock.ts";
import { doLater } from "../setup/end-later.ts";
import { connectTo } from "../setup/listen.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

/** Takes each port as soon as a server of this process releases it. */
function takeReleasedPorts(): void {
  const { close } = Server.prototype;
  const takers: Server[] = [];
  Server.prototype.close = function (this: Server, callback) {
    const address = this.address();
    const released = async (error?: Error) => {
      if (typeof address === "object" && address !== null) {
        const taker = createServer().listen(address.port, "127.0.0.1");
        takers.push(taker);
        await once(taker, "listening");
      }
      callback?.(error);
    };
    return close.call(this, (error) => void released(error));
  };
  doLater(() => {
    Server.prototype.close = close;
    for (const taker of takers) taker.close();
  });
}

it("the soak and the benchmark use no port that another program can take first", async () => {
  const directory = temporaryDirectory();
  const engine = await startEngine(directory, { prepareSandbox: false });
  doLater(() => engine.close());
  takeReleasedPorts();
  const taken = await freePort(0);
  await expect(connectTo(taken), "another program has the port").resolves.toBeDefined();
  const worker = await serve(CONFIGS.ours, engine, join(directory, "state"), { inspector: true });
  doLater(() => worker.close());
  const headers = { authorization: `Bearer ${TOKEN}` };
  expect((await fetch(`${worker.url}/health`, { headers })).status).toBe(200);
  expect((await fetch(`http://127.0.0.1:${worker.inspectorPort}/json/list`)).status).toBe(200);
});
