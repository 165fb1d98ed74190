/** Downloads of a run's log. */
import { expect, it, vi } from "vitest";
import { RunOutputs } from "../../../src/actors/run-outputs.ts";
import { LOG_NAME } from "../../../src/shared/resource-uri.ts";
import { sleep } from "../../setup/until.ts";

const LOG_BYTES = 1_000_000;

/** The outputs of a sandbox. `most` is the highest number of pages that its downloads read at once, `pages` the number of all. */
function createOutputs(principalID: string) {
  let [reading, most, pages] = [0, 0, 0];
  const log = async (_id: string, cursor: number, maxBytes: number) => {
    pages += 1;
    most = Math.max(most, ++reading);
    await sleep(1);
    reading -= 1;
    return { pieces: [{ stream: "stdout", bytes: new Uint8Array(maxBytes) }], next: cursor + maxBytes };
  };
  const host = {
    account: { principalID },
    activity: { trackTransfer: (body: ReadableStream<Uint8Array>) => body },
    runs: { log },
  };
  const outputs = new RunOutputs(host as unknown as ConstructorParameters<typeof RunOutputs>[0]);
  const open = () => outputs.open("box.run", LOG_NAME, 0, LOG_BYTES);
  return { open, most: () => most, pages: () => pages };
}

/** Turns end only with their work. Otherwise they would end early on a slow machine. */
function holdTurns(): void {
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
}

it("of many downloads of a principal's logs, few read a page at once, and all are complete", async () => {
  holdTurns();
  const { open, most } = createOutputs("downloads-logs");
  const download = async () => (await new Response(await open()).bytes()).length;
  const lengths = await Promise.all(Array.from({ length: 64 }, download));
  expect(new Set(lengths)).toEqual(new Set([LOG_BYTES]));
  expect(most()).toBeLessThan(10);
});

it("downloads whose clients stop reading, or disconnect, delay no other download", async () => {
  holdTurns();
  const { open, pages } = createOutputs("downloads-stalled");
  const readers = await Promise.all(Array.from({ length: 32 }, async () => (await open()).getReader()));
  await Promise.all(readers.map(async (reader) => await reader.read()));
  const last = readers.splice(0, 16);
  await Promise.all(last.map(async (reader) => await reader.cancel()));
  const before = pages();
  expect(await new Response(await open()).bytes()).toHaveLength(LOG_BYTES);
  expect(pages() - before).toBeLessThan(10);
});

it("a page of a log is passed on in few pieces", async () => {
  const { open } = createOutputs("downloads-pieces");
  let pieces = 0;
  const count = new TransformStream<Uint8Array, Uint8Array>({
    transform: (piece, controller) => {
      pieces += 1;
      controller.enqueue(piece);
    },
  });
  const { readable, writable } = new IdentityTransformStream();
  void (await open()).pipeThrough(count).pipeTo(writable);
  expect(await new Response(readable).bytes()).toHaveLength(LOG_BYTES);
  expect(pieces).toBeLessThan(10);
});
