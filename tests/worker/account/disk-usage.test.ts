import { expect, test } from "vitest";
import { type ListedSandbox, runInActor, owner, sh, until } from "../support.ts";

async function sizeOf(sandbox: string) {
  const { structured, text } = await owner.call("list_sandboxes");
  const sandboxes = structured.sandboxes as ListedSandbox[];
  const line = text.split("\n").find((one) => one.startsWith(`${sandbox}:`));
  return { one: sandboxes.find(({ name }) => name === sandbox), line };
}

const size = async (sandbox: string) => (await sizeOf(sandbox)).one?.size_bytes;

test("a sandbox has no size until the server measures it after its use, the size 0 while it is stopped, and a new size after that", async () => {
  await owner.call("write_file", { sandbox: "sized", path: "a", content: "x".repeat(100_000) });
  const { one, line } = await sizeOf("sized");
  expect(one).toMatchObject({ name: "sized", state: "running" });
  expect(one).not.toHaveProperty("size_bytes");
  expect(line).not.toContain("bytes");
  await until(async () => ((await size("sized")) ?? 0) >= 100_000);
  expect((await sizeOf("sized")).line).toMatch(/^sized: running, 10\d{4} bytes in \/workspace, used/);
  await runInActor("sized", (actor) => actor.stop());
  await until(async () => (await size("sized")) === 0);
  // Its files are saved, so "0 bytes in /workspace" would be wrong.
  expect((await sizeOf("sized")).line).toMatch(
    /^sized: stopped, used .* ago, saved .* ago \(100000 bytes in all\)/,
  );
  await sh("sized", "rm -f a");
  expect(await size("sized")).toBeUndefined();
  await until(async () => ((await size("sized")) ?? Infinity) < 100_000);
});
