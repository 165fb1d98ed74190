/** The account is reset during a call, as after a deployment. */
import { afterEach, expect, it, vi } from "vitest";
import { owner, resetAccountAt, sh } from "../support.ts";

afterEach(() => void vi.restoreAllMocks());

it("a run that has not begun says that it never started, and the next one runs", async () => {
  const sandbox = "reset-run";
  resetAccountAt("workspace");
  const { structured, text } = await owner.call("run_command", { sandbox, command: "echo ran" });
  expect(structured.state).toBe("lost");
  expect(text).toContain("The run never started, because the server was restarted first.");
  expect(await sh(sandbox, "echo ran")).toBe("ran\n");
});

it("a call that creates a sandbox from a checkpoint says that the server was restarted", async () => {
  const sandbox = "reset-fork";
  await sh(sandbox, "echo kept > file");
  const { checkpoint } = (await owner.call("checkpoint_sandbox", { sandbox })).structured;
  const fork = () => owner.call("restore_sandbox", { sandbox: "reset-forked", checkpoint });
  resetAccountAt("fork");
  expect((await fork()).text).toContain("The server restarted during this call for sandbox reset-forked.");
  expect((await fork()).isError).toBe(false);
  expect(await sh("reset-forked", "cat file")).toBe("kept\n");
});

it("a call that deletes a checkpoint says that the server was restarted", async () => {
  const sandbox = "reset-delete";
  await sh(sandbox, "echo kept > file");
  const { checkpoint } = (await owner.call("checkpoint_sandbox", { sandbox })).structured;
  const remove = () => owner.call("destroy_sandbox", { sandbox, checkpoint });
  resetAccountAt("removeCheckpoint");
  expect((await remove()).text).toContain("The server restarted during this call for sandbox reset-delete.");
  expect((await remove()).isError).toBe(false);
});
