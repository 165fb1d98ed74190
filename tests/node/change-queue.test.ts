import { expect, it } from "vitest";
import * as z from "zod/mini";
import { ChangeQueue } from "../../container/sandboxd/change-queue.ts";
import { GuardedPath } from "../../container/sandboxd/confinement.ts";
import { operations } from "../../container/sandboxd/operations.ts";
import type { Handlers } from "../../container/sandboxd/serve-operation.ts";
import { path } from "../../container/sandboxd/shapes.ts";
import { Writes } from "../../container/sandboxd/writing.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const directory = temporaryDirectory();
const guarded = (name: string) => GuardedPath.open(directory, name, false);

it("a change of two files waits for the earlier changes of both, and the next change of either waits for it", async () => {
  const queue = new ChangeQueue();
  const [a, b] = await Promise.all([guarded("a"), guarded("b")]);
  const done: string[] = [];
  const ofA = Promise.withResolvers<void>();
  const ofB = Promise.withResolvers<void>();
  const changes = [
    queue.run({ path: a }, () => ofA.promise.then(() => done.push("a"))),
    queue.run({ path: b }, () => ofB.promise.then(() => done.push("b"))),
    queue.run({ path: a, to: b }, async (paths) => done.push(`both ${Object.keys(paths)}`)),
    queue.run({ path: b }, async () => done.push("b again")),
  ];
  ofB.resolve();
  await changes[1];
  await new Promise((resolve) => setImmediate(resolve));
  expect(done).toEqual(["b"]);
  ofA.resolve();
  await Promise.all(changes);
  expect(done).toEqual(["b", "a", "both path,to", "b again"]);
});

it("a change begins although the earlier change of its file failed", async () => {
  const queue = new ChangeQueue();
  const a = await guarded("a");
  const failing = queue.run({ path: a }, () => Promise.reject(new Error("a full disk")));
  const next = queue.run({ path: a }, async () => "done");
  await expect(failing).rejects.toThrow("a full disk");
  expect(await next).toBe("done");
});

it("a repeated call does not repeat a change that is still in progress, although 100 later changes have ended", async () => {
  const writes = new Writes();
  const response = Promise.withResolvers<void>();
  let made = 0;
  const call = () =>
    writes.once("slow", async () => {
      made++;
      await response.promise;
      return "made";
    });
  const first = call();
  for (let i = 0; i < 100; i++) await writes.once(`quick-${i}`, async () => "made");
  const repeated = call();
  response.resolve();
  expect(await Promise.all([first, repeated])).toEqual(["made", "made"]);
  expect(made).toBe(1);
});

it("repeated calls that wait for a failing one do the work once", async () => {
  const writes = new Writes();
  const failing = Promise.withResolvers<string>();
  let made = 0;
  const again = () => writes.once("again", async () => `made ${++made}`);
  const first = writes.once("again", () => failing.promise);
  const repeated = [again(), again()];
  failing.reject(new Error("a full disk"));
  await expect(first).rejects.toThrow("a full disk");
  expect(await Promise.all(repeated)).toEqual(["made 1", "made 1"]);
});

it("no operation moves or removes /workspace or the root", async () => {
  const [a, root, workspace] = await Promise.all([
    guarded("a"),
    GuardedPath.open("/", "", false),
    GuardedPath.open("/", "workspace", false),
  ]);
  for (const to of [root, workspace])
    await expect(new ChangeQueue().run({ path: a, to }, async () => "moved")).rejects.toThrow("EPERM");
});

it("a handler that guards only one of its operation's two paths does not compile", async () => {
  const queue = new ChangeQueue();
  const [a, b] = await Promise.all([guarded("a"), guarded("b")]);
  const { input, ...remove } = operations.remove;
  const move = {
    ...remove,
    route: "POST /move" as const,
    input: z.extend(input, { to: z.optional(path()) }),
  };
  type Move = Handlers<{ move: typeof move }>;
  const both: Move = { "POST /move": () => queue.run({ path: a, to: b }, async () => ({})) };
  // @ts-expect-error -- The path `to` is missing.
  const one: Move = { "POST /move": () => queue.run({ path: a }, async () => ({})) };
  expect([both, one].map((handlers) => Object.keys(handlers))).toEqual([["POST /move"], ["POST /move"]]);
});
