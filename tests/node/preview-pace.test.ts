/** The speed of a preview with an endless body, measured with a fake clock. */
import { createServer, type Server } from "node:http";
import { PassThrough } from "node:stream";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { PREVIEW_PORT, SANDBOXD_PORT } from "../../container/sandboxd/protocol.ts";
import { PortForwarder } from "../../local/engine/forward.ts";
import { FramedConnection } from "../../local/engine/frames.ts";
import { RelayPace } from "../../local/engine/relay.ts";
import { sleep, until } from "../setup/until.ts";
import { connectTo, listen } from "../setup/listen.ts";

const MiB = 1024 * 1024;
const ENDLESS_MiB = 256;

let inside: Server;
let engine: Server;
let port: number;

beforeEach(async () => {
  // Faked before the forwarder reads the clock, because the fake clock begins at 0.
  vi.useFakeTimers({ toFake: ["performance"] });
  inside = createServer((_request, response) => {
    const piece = Buffer.alloc(MiB, "x");
    let remaining = ENDLESS_MiB;
    const write = () => {
      while (remaining-- > 0) if (!response.write(piece)) return void response.once("drain", write);
      response.end();
    };
    write();
  });
  const insidePort = await listen(inside);
  const forwarder = new PortForwarder(
    () => connectTo(insidePort),
    () => undefined,
  );
  engine = createServer((request, response) => void forwarder.request(SANDBOXD_PORT, "/", request, response));
  port = await listen(engine);
});

afterEach(() => {
  vi.useRealTimers();
  for (const server of [inside, engine]) {
    server.closeAllConnections();
    server.close();
  }
});

/** Reads a body in the background, and counts its bytes. */
function startReading(headers: Record<string, string>): { bytes: number } {
  const body = { bytes: 0 };
  void (async () => {
    const response = await fetch(`http://127.0.0.1:${port}/`, { headers });
    for await (const piece of response.body ?? []) body.bytes += piece.length;
  })().catch(() => undefined);
  return body;
}

/** Resolves with the number of bytes when nothing more arrives. Without a limit, that is the whole body. */
async function waitForPause(body: { bytes: number }): Promise<number> {
  for (let before = -1; before < body.bytes || before <= 0;) {
    before = body.bytes;
    await sleep(500);
  }
  return body.bytes;
}

it("a preview's body is passed on at full speed up to a page's size, then at a limited rate; a file is not slowed down", async () => {
  const page = startReading({ [PREVIEW_PORT]: "8080" });
  await until(() => page.bytes > 32 * MiB);
  const atOnce = await waitForPause(page);
  expect(atOnce).toBeLessThan(128 * MiB);
  vi.advanceTimersByTime(2000);
  await until(() => page.bytes > atOnce + 16 * MiB);
  expect(await waitForPause(page)).toBeLessThan(ENDLESS_MiB * MiB);
  const file = startReading({});
  await until(() => file.bytes === ENDLESS_MiB * MiB);
});

it.each([
  { what: "bytes", bytes: 16 * MiB, weight: 1, paused: 2 },
  { what: "pieces", bytes: 0, weight: 10_000, paused: 6 },
])(
  "the previews of all sandboxes of a principal share a limit, and do not delay calls or others: $what",
  ({ what, bytes, weight, paused }) => {
    const take = (principal: string, isOfPreviews: boolean) => {
      const pace = new RelayPace(isOfPreviews);
      pace.joinPrincipal(`${principal} of ${what}`);
      pace.pieces.take(bytes, weight);
      return pace.pieces;
    };
    const previews = Array.from({ length: 10 }, () => take("attacker", true));
    expect(previews.filter(({ isPaused }) => isPaused)).toHaveLength(paused);
    for (const pieces of [take("attacker", false), take("neighbour", true)])
      expect(pieces.isPaused).toBe(false);
  },
);

it("the connections of our servers in all sandboxes of a principal share a limit of bytes, and those of other principals do not", () => {
  const connectionsOf = (principal: string) => {
    const pace = new RelayPace(false);
    pace.joinPrincipal(principal);
    return pace;
  };
  const waits = Array.from({ length: 10 }, () => connectionsOf("one").takeBytes(16 * MiB));
  expect(waits.filter((ms) => ms > 0)).toHaveLength(2);
  expect(connectionsOf("other").takeBytes(16 * MiB)).toBe(0);
});

it("the messages of a preview's WebSocket are passed on at full speed up to a page's size, and then pause", async () => {
  const socket = new PassThrough();
  const connection = new FramedConnection(socket, new RelayPace(true).pieces, true, () => undefined);
  connection.resume();
  const message = Buffer.concat([Buffer.from("827f0000000001000000", "hex"), Buffer.alloc(16 * MiB)]);
  for (const isPaused of [false, false, false, false, true]) {
    socket.write(message);
    await until(() => socket.readableLength === 0 || connection.isPaused());
    expect(connection.isPaused()).toBe(isPaused);
  }
});
