/** The sandbox that a server prepares before a call needs it, and a machine that can no longer start sandboxes. */
import { readdir, rename } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { endLater } from "../setup/end-later.ts";
import { startServer } from "../setup/server.ts";
import { nextPrepared, whichCommand } from "../setup/start-ahead.ts";
import { tool } from "../setup/tool.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const stateDir = temporaryDirectory();
const server = endLater(await startServer({ flags: ["--state-dir", stateDir], asUser: true }));
const runDir = join(stateDir, "run");
const engine = join(runDir, (await readdir(runDir)).find((name) => /^[0-9a-f]{16}$/.test(name)) ?? "");

const run = (sandbox: string, command: string) => tool(server.url, "run_command", { sandbox, command });

it("the first call gets the prepared sandbox, and a call in another sandbox gets the next prepared one", async () => {
  const first = await nextPrepared(engine);
  expect((await run("one", whichCommand)).text).toContain(first.which);
  const second = await nextPrepared(engine, [first.name]);
  expect((await run("two", whichCommand)).text).toContain(second.which);
  expect((await run("one", whichCommand)).text).toContain(first.which);
  // The next test removes a file, so no sandbox may still be starting.
  await nextPrepared(engine, [first.name, second.name]);
});

it("if no sandbox can be made, the error says that a retry does not help, and the log says why", async () => {
  // Without this file, bwrap cannot make a sandbox.
  const file = join(engine, "files/etc/hostname");
  await rename(file, `${file}.away`);
  const { isError, text } = await run("three", "echo made");
  expect([isError, text]).toEqual([true, expect.stringContaining("the operator has to act")]);
  expect(text).not.toContain(stateDir);
  await expect.poll(() => server.stderr()).toContain("This machine cannot make a sandbox: bwrap: ");
  await rename(`${file}.away`, file);
  expect((await run("three", "echo made")).text).toContain("made");
});
