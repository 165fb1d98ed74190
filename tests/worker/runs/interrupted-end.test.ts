import { beforeEach, expect, it, vi } from "vitest";
import type { Sandbox } from "../../../src/index.ts";
import { evict, idIn, owner, result, runInActor, sh, sleep, until, waitForText } from "../support.ts";

const LOOP = "echo begun; while :; do echo tick >>/tmp/ticks; sleep 0.1; done";
const GONE = /as saved at \S+ \(1 file, 6 bytes\)\. Processes, variables and any later changes are gone\./;

let serial = 0;
let sandbox: string;
let id: string;

beforeEach(async () => {
  sandbox = `interrupted-end-${serial++}`;
  await sh(sandbox, "echo saved >saved");
  await owner.call("checkpoint_sandbox", { sandbox });
  id = idIn(await owner.call("run_command", { sandbox, command: LOOP, session: "loop", wait_seconds: 0 }));
  await waitForText(id, "begun");
});

/** Calls destroy_sandbox, and evicts the actor before the platform gets the container's end. */
async function interruptDestruction(): Promise<void> {
  await runInActor(sandbox, (actor) => {
    const prototype: Sandbox = Object.getPrototypeOf(actor);
    vi.spyOn(prototype, "destroy").mockImplementationOnce(() => new Promise(() => {}));
  });
  await owner.call("write_file", { sandbox, path: "unsaved", content: "x" });
  const destroying = owner.call("destroy_sandbox", { sandbox });
  await until(async () => (await result(id)).text.includes("The sandbox was destroyed during this run"));
  await evict(sandbox);
  expect((await destroying).isError).toBe(true);
}

/** Calls the sandbox again. In a new container, there is no file of ticks. */
async function nextCall() {
  const command = "ls; wc -l </tmp/ticks; sleep 0.5; wc -l </tmp/ticks";
  const { notice, stdout } = (await owner.call("run_command", { sandbox, command })).structured;
  return { notice, stdout };
}
const IN_NEW_CONTAINER = { notice: expect.stringMatching(GONE), stdout: "saved\n" };

it("a command does not go on in the next call if the actor is evicted while it destroys the sandbox", async () => {
  await interruptDestruction();
  expect(await nextCall()).toEqual(IN_NEW_CONTAINER);
});

it("a command does not go on in the next call if the platform fails to end the container", async () => {
  await runInActor(sandbox, (actor) => {
    const prototype: Sandbox = Object.getPrototypeOf(actor);
    vi.spyOn(prototype, "destroy").mockRejectedValueOnce(new Error("failed by a test"));
  });
  expect((await owner.call("destroy_sandbox", { sandbox })).isError).toBe(true);
  expect(await nextCall()).toEqual(IN_NEW_CONTAINER);
});

it("the next actor ends the container without a call, and does not claim that all was saved", async () => {
  await interruptDestruction();
  const isRunning = () => runInActor(sandbox, (_actor, { container }) => container?.running === true);
  await until(async () => !(await isRunning()));
  await sleep(100);
  const next = await owner.call("run_command", { sandbox, command: "ls" });
  expect(next.structured.notice).toMatch(GONE);
});
