/** What a list of sandboxes says of their sizes. */
import { expect, test } from "vitest";
import { inActor, owner, sh } from "../support.ts";

interface Listed {
  name: string;
  state: string;
  size_bytes?: number;
}

async function listed(sandbox: string): Promise<[one: Listed | undefined, line: string | undefined]> {
  const { structured, text } = await owner.call("list_sandboxes");
  const { sandboxes } = structured as { sandboxes: Listed[] };
  const line = text.split("\n").find((one) => one.startsWith(`${sandbox}:`));
  return [sandboxes.find(({ name }) => name === sandbox), line];
}

const size = async (sandbox: string) => (await listed(sandbox))[0]?.size_bytes;

test("the size of a sandbox is none that was not measured, and right soon after its use", async () => {
  await owner.call("write_file", { sandbox: "sized", path: "a", content: "x".repeat(100_000) });
  const [one, line] = await listed("sized");
  expect(one).toMatchObject({ name: "sized", state: "running" });
  expect(one).not.toHaveProperty("size_bytes");
  expect(line).not.toContain("bytes");
  await expect.poll(() => size("sized")).toBeGreaterThanOrEqual(100_000);
  expect((await listed("sized"))[1]).toMatch(/^sized: running, 10\d{4} bytes in \/workspace, used/);
});

test("is 0 for a stopped sandbox, and is measured again in the next container", async () => {
  await sh("restarted", "head -c 100000 /dev/zero >a");
  await expect.poll(() => size("restarted")).toBeGreaterThanOrEqual(100_000);
  await inActor("restarted", (actor) => actor.stop());
  await expect.poll(() => size("restarted")).toBe(0);
  await sh("restarted", "rm -f a");
  expect(await size("restarted")).toBeUndefined();
  await expect.poll(() => size("restarted")).toBeLessThan(100_000);
});
