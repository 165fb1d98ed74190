/** Notices of lost files reach every caller, also one whose tool or route does not expect them. */
import { describe, expect, it } from "vitest";
import { evict, killContainer, owner, runInActor, sh } from "../support.ts";

const LOST = "The sandbox was restarted";

/** The container is killed, and a request that shows no notice starts the next one. */
async function loseFiles(sandbox: string): Promise<void> {
  await owner.call("write_file", { sandbox, path: "acknowledged", content: "x" });
  await killContainer(sandbox);
  const started = await owner.http(`/sandboxes/${sandbox}/files/new`, { method: "PUT", body: "x" });
  expect(started.status).toBe(200);
}

const execute = (fields: object, headers = {}) =>
  owner.http("/execute", { method: "POST", body: JSON.stringify(fields), headers });

describe("a notice of lost files", () => {
  it.each([
    ["question", { question: "[[product]] x" }, {}],
    ["task", { task: "[[write]] x" }, {}],
    ["question with events", { question: "[[product]] x" }, { accept: "text/event-stream" }],
  ])("is in the response of REST to a %s", async (name, fields, headers) => {
    const sandbox = `notice-${name.replaceAll(" ", "-")}`;
    await loseFiles(sandbox);
    expect(await (await execute({ ...fields, sandbox }, headers)).text()).toContain(LOST);
  });

  it("is in the text and the data of a tool whose own data has no place for it", async () => {
    const sandbox = "notice-data";
    await loseFiles(sandbox);
    const { text, structured } = await owner.call("configure_sandbox", { sandbox });
    expect(text.split(LOST)).toHaveLength(2);
    expect(structured.notice).toContain(LOST);
  });

  it("is shown once with a failed set-up, which every call to the sandbox reports", async () => {
    const sandbox = "notice-setup";
    await owner.call("configure_sandbox", { sandbox, setup: "exit 3" });
    await loseFiles(sandbox);
    const { text, structured } = await owner.call("execute_task", { sandbox, task: "[[write]] x" });
    expect(text).toContain(LOST);
    expect(text.split("The set-up of this sandbox failed")).toHaveLength(2);
    expect(structured.notice).toContain(LOST);
  });

  it("is in the answer with an artifact, in REST's response with a result, and not lost by a response without text", async () => {
    const sandbox = "notice-later";
    const ids = await Promise.all(
      ["task", "again"].map(async () => {
        const response = await execute({ task: "[[write]] x", sandbox });
        return (await response.json<{ taskId: string }>()).taskId;
      }),
    );
    const [id = "", other = ""] = ids;
    await loseFiles(sandbox);
    expect((await owner.http(`/tasks/${other}/result`, { method: "DELETE" })).status).toBe(204);
    expect((await owner.call("get_result", { id, artifact: "a.txt" })).text).toContain(LOST);
    await loseFiles(sandbox);
    expect(await (await owner.http(`/tasks/${id}/result`)).text()).toContain(LOST);
  });

  it.each([
    ["fork", "restore_sandbox", {}],
    ["new", "run_command", { command: "true" }],
    ["configured", "configure_sandbox", { idle_minutes: 30 }],
  ])("of a removed sandbox is not in a later sandbox of its name: %s", async (how, tool, args) => {
    const source = "notice-source";
    await sh(source, "touch file");
    const { checkpoint } = (await owner.call("checkpoint_sandbox", { sandbox: source })).structured;
    const sandbox = `notice-${how}`;
    // As after the removal of an unused sandbox whose container was lost, and the end of its saved state.
    await runInActor(sandbox, (_actor, { storage }) => storage.kv.put("restart:ended", ""));
    await evict(sandbox);
    const first = await owner.call(tool, { ...args, ...(how === "fork" && { checkpoint }), sandbox });
    const next = await owner.call("run_command", { sandbox, command: "ls" });
    expect(first.text + next.text).not.toContain(LOST);
  });

  it("is in the next result if the sandbox was restarted during a stream of events, which the client may stop reading", async () => {
    const sandbox = "notice-stream";
    await owner.call("write_file", { sandbox, path: "acknowledged", content: "x" });
    await killContainer(sandbox);
    const stream = await execute({ question: "[[product]] x", sandbox }, { accept: "text/event-stream" });
    const [, id = ""] = /"taskId":"([^"]+)"/.exec(await stream.text()) ?? [];
    expect((await owner.call("get_result", { id })).text).toContain(LOST);
  });
});
