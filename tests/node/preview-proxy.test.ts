/** A preview's connection to a program is occupied only as long as browsers wait, and visitors stay. */
import { once } from "node:events";
import { createServer, IncomingMessage, request, type RequestOptions } from "node:http";
import { Socket } from "node:net";
import { PassThrough } from "node:stream";
import { expect, it, onTestFinished, vi } from "vitest";
import { countOpenPreviews, passRequest, passUpgrade } from "../../container/sandboxd/preview-proxy.ts";
import { PREVIEW_ERROR, PREVIEW_RESPONSE_MS } from "../../container/sandboxd/protocol.ts";
import { endLater } from "../setup/end-later.ts";
import { listen } from "../setup/listen.ts";
import { until } from "../setup/until.ts";

/** Requests and pieces of bodies that the program has received. It answers only at `/answered`. */
let received = 0;
const program = createServer((incoming, response) => {
  received++;
  incoming.on("error", () => undefined).on("data", () => received++);
  if (incoming.url === "/answered") response.write("begun");
}).on("upgrade", ({ url }, socket) => {
  received++;
  const agreed = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n";
  socket.on("error", () => undefined).on("end", () => socket.end());
  socket.resume();
  if (url === "/answered") socket.write(agreed);
});
const programPort = await listen(endLater(program));
const passing = createServer((incoming, response) => void passRequest(programPort, incoming, response)).on(
  "upgrade",
  (incoming, client, head) => void passUpgrade(programPort, incoming, client, head),
);
const port = await listen(endLater(passing));

const send = (path: string, options: RequestOptions = {}) =>
  request({ port, path, ...options }).on("error", () => undefined);

it("requests and upgrades that a program does not answer end, but not uploads that go on or answers that have begun", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  onTestFinished(() => void vi.useRealTimers());
  // Waits without a timer.
  const receive = async (count: number) => {
    while (received < count) await new Promise(setImmediate);
  };
  const headers = { connection: "Upgrade", upgrade: "x" };
  const hanging = once(send("/hang").end(), "response");
  const refused = once(send("/hang", { headers }).end(), "error");
  const upload = send("/hang", { method: "POST" });
  upload.write("a part");
  const [stream] = await once(send("/answered").end(), "response");
  const [, socket] = await once(send("/answered", { headers }).end(), "upgrade");
  await receive(6);
  vi.advanceTimersByTime(PREVIEW_RESPONSE_MS / 2);
  upload.write("another part");
  await receive(7);
  vi.advanceTimersByTime(PREVIEW_RESPONSE_MS / 2);
  const [{ statusCode, headers: answer }] = await hanging;
  expect([statusCode, answer[PREVIEW_ERROR]]).toEqual([502, "broken"]);
  expect(await refused).toMatchObject([{ code: "ECONNRESET" }]);
  vi.useRealTimers();
  expect(await until(() => countOpenPreviews() === 3)).toBe(true);
  for (const left of [upload, stream, socket]) left.destroy();
  expect(await until(() => countOpenPreviews() === 0)).toBe(true);
});

it("a visitor that disconnects before the program accepts its upgrade occupies no connection", async () => {
  const client = new PassThrough();
  const upgrading = passUpgrade(programPort, new IncomingMessage(new Socket()), client, Buffer.alloc(0));
  client.destroy();
  await upgrading;
  expect(await until(() => countOpenPreviews() === 0)).toBe(true);
});
