/** Work that waits in a queue, such as the runs of a session. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expect, it } from "vitest";
import { KeyedQueue } from "../../src/shared/queue.ts";

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

const endless = () => new Promise<string>(() => undefined);

it("never does withdrawn work, and does the work after it in order", async () => {
  const queue = new KeyedQueue();
  const begun: string[] = [];
  const first = Promise.withResolvers<string>();
  const begin = (id: string, end: Promise<string>) => () => {
    begun.push(id);
    return end;
  };
  const runs = [
    queue.run("session", "first", begin("first", first.promise)),
    queue.run("session", "second", begin("second", Promise.resolve("done")), () => "withdrawn"),
    queue.run("session", "third", begin("third", Promise.resolve("done")), () => "withdrawn"),
  ];
  expect(queue.waitingFor("session", "third")).toEqual(["first", "second"]);
  queue.withdraw("session", "second");
  expect(await runs[1]).toBe("withdrawn");
  expect(queue.waitingFor("session", "third")).toEqual(["first"]);
  // Work that has begun cannot be withdrawn.
  queue.withdraw("session", "first");
  first.resolve("done");
  expect(await Promise.all(runs)).toEqual(["done", "withdrawn", "done"]);
  expect(begun).toEqual(["first", "third"]);
});

it("keeps no input of withdrawn work while the work before it continues", async () => {
  const queue = new KeyedQueue();
  void queue.run("session", "first", endless);
  const inputs = Array.from({ length: 20 }, (_, n) => {
    const input = { bytes: new Uint8Array(1000) };
    const id = `${n}`;
    void queue.run(
      "session",
      id,
      async () => `${input.bytes.length}`,
      () => "withdrawn",
    );
    queue.withdraw("session", id);
    return new WeakRef(input);
  });
  await expect
    .poll(() => {
      collectGarbage();
      return inputs.filter((input) => input.deref()).length;
    })
    .toBeLessThan(2);
});
