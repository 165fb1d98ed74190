import { expect, test } from "vitest";
import { type ListedSandbox, runInActor, owner, sh } from "../support.ts";

async function sizeOf(sandbox: string) {
  const { structured, text } = await owner.call("list_sandboxes");
  const sandboxes = structured.sandboxes as ListedSandbox[];
  const line = text.split("\n").find((one) => one.startsWith(`${sandbox}:`));
  return { one: sandboxes.find(({ name }) => name === sandbox), line };
}

const size = async (sandbox: string) => (await sizeOf(sandbox)).one?.size_bytes;

test("a sandbox has no size until the server measures it after its use", async () => {
  await owner.call("write_file", { sandbox: "sized", path: "a", content: "x".repeat(100_000) });
  const { one, line } = await sizeOf("sized");
  expect(one).toMatchObject({ name: "sized", state: "running" });
  expect(one).not.toHaveProperty("size_bytes");
  expect(line).not.toContain("bytes");
  await expect.poll(() => size("sized")).toBeGreaterThanOrEqual(100_000);
  expect((await sizeOf("sized")).line).toMatch(/^sized: running, 10\d{4} bytes in \/workspace, used/);
});

test("a stopped sandbox has the size 0, and the server measures its next container", async () => {
  await sh("restarted", "head -c 100000 /dev/zero >a");
  await expect.poll(() => size("restarted")).toBeGreaterThanOrEqual(100_000);
  await runInActor("restarted", (actor) => actor.stop());
  await expect.poll(() => size("restarted")).toBe(0);
  await sh("restarted", "rm -f a");
  expect(await size("restarted")).toBeUndefined();
  await expect.poll(() => size("restarted")).toBeLessThan(100_000);
});
