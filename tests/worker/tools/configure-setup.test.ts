import { expect, it } from "vitest";
import { callsIn, evict, idIn, killContainer, owner, result, sh, until } from "../support.ts";

const configure = (sandbox: string, setup: string) =>
  owner.call("configure_sandbox", { sandbox, setup, env: { WORD: "w" } });

it("runs once before the first call, with the variables, and again in the next container", async () => {
  const sandbox = "setup-once";
  await configure(sandbox, "echo $WORD >> /tmp/ran");
  expect(await sh(sandbox, "cat /tmp/ran")).toBe("w\n");
  expect(await sh(sandbox, "cat /tmp/ran")).toBe("w\n");
  await evict(sandbox);
  expect((await callsIn(sandbox).code("open('/tmp/ran').read()")).text).toContain("'w\\n'");
  await killContainer(sandbox);
  await until(async () => (await callsIn(sandbox).command("true")).text.includes("restarted"));
  expect(await sh(sandbox, "cat /tmp/ran")).toBe("w\n");
});

it("keeps a call waiting behind it no longer than that waits, and runs now where the sandbox runs", async () => {
  const sandbox = "setup-wait";
  await sh(sandbox, "true");
  await configure(sandbox, "while [ ! -e /tmp/go ]; do sleep 0.05; done; echo done >/tmp/ready");
  const waiting = await callsIn(sandbox).command("cat /tmp/ready", { wait_seconds: 0 });
  expect(waiting.text).toContain("it waits for the set-up of the sandbox");
  await owner.call("write_file", { sandbox, path: "/tmp/go", content: "" });
  expect((await result(idIn(waiting))).text).toContain("done");
});

it("that fails is told of with its output, and keeps nothing from running", async () => {
  const sandbox = "setup-fails";
  await configure(sandbox, "echo so it goes >&2; exit 3");
  const { text } = await callsIn(sandbox).command("echo works");
  expect(text).toContain("works");
  expect(text).toContain("did not succeed (failed, exit code 3)");
  expect(text).toContain("so it goes");
  expect((await callsIn(sandbox).command("echo again")).text).not.toContain("succeed");
});
