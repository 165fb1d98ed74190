/** One principal tries to reach all data of another, with every tool, by resources, and at the route for results of tasks. */
import { beforeAll, describe, expect, it } from "vitest";
import { actorName } from "../../../src/shared/names.ts";
import { FILE_TEMPLATE, RUN_TEMPLATE, runURI } from "../../../src/shared/resource-uri.ts";
import type { ToolName } from "../../../src/shared/tool-sets.ts";
import { tools } from "../../../src/tools/index.ts";
import { type Caller, owner, principal } from "../support.ts";

const sandbox = "attacked";
const SECRET = "alices-secret";
const ALL = ["sandbox:exec", "sandbox:write", "sandbox:read", "tasks:run"] as const;

let attacker: Caller;
/** The owner's checkpoint of the sandbox. */
let checkpoint: string;
/** Ids of the owner, each with an id of the same form that does not exist: a running run, an ended run, a task. */
let ids: (readonly [foreign: string, missing: string])[];

const missingLike = (id: string) => `${id.split(".")[0]}.${"0".repeat(26)}${id.endsWith("t") ? "t" : ""}`;

const ownedData = async () => ({
  file: (await owner.call("read_file", { sandbox, path: "secret" })).structured.content,
  checkpoint: ((await owner.call("list_sandboxes")).structured.checkpoints as { id: string }[]).find(
    ({ id }) => id === checkpoint,
  ),
  running: (await owner.call("get_result", { id: ids[0]?.[0], wait_seconds: 0 })).text.slice(0, 14),
  task: JSON.stringify((await owner.call("get_result", { id: ids[2]?.[0], wait_seconds: 0 })).structured),
});

let before: Awaited<ReturnType<typeof ownedData>>;

beforeAll(async () => {
  attacker = await principal("attacker", ALL);
  const ended = await owner.call("run_command", { sandbox, command: `echo ${SECRET} | tee secret` });
  const under = await owner.call("run_command", {
    sandbox,
    command: "sleep 4006",
    session: "x",
    wait_seconds: 0,
  });
  const task = await owner.call("execute_task", { sandbox, task: `[[write]] ${SECRET}` });
  ids = [under, ended, task].map(({ structured }) => {
    const id = String(structured.id);
    return [id, missingLike(id)];
  });
  const created = await owner.call("checkpoint_sandbox", { sandbox });
  checkpoint = String(created.structured.checkpoint);
  // The attacker also has a sandbox of that name.
  await attacker.call("run_command", { sandbox, command: "true" });
  before = await ownedData();
});

/** Arguments that name data of another principal. */
const TRIES: Record<ToolName, (id: string) => Record<string, unknown>[]> = {
  run_code: () => [{ sandbox, code: "print(open('/workspace/secret').read())" }],
  run_command: () => [
    { sandbox, command: "cat /workspace/secret; ls /workspace /proc/*/root/workspace 2>&1", session: "x" },
    { sandbox, command: "cat secret", cwd: "/workspace" },
  ],
  read_file: () => [
    { sandbox, path: "secret" },
    { sandbox, path: "/proc/1/root/workspace/secret" },
  ],
  list_files: () => [{ sandbox, path: "/workspace", recursive: true }],
  write_file: () => [{ sandbox, path: "secret", content: "overwritten" }],
  edit_file: () => [
    { sandbox, path: "secret", edits: [{ old_text: "e", new_text: "overwritten", all: true }] },
    { sandbox, path: "/proc/1/root/workspace/secret", edits: [{ old_text: "nothing", new_text: "x" }] },
  ],
  file_link: () => [
    { sandbox, path: "secret" },
    { sandbox, path: "secret", direction: "upload" },
  ],
  expose_port: () => [
    { sandbox, port: 8080 },
    { sandbox, port: 8080, expose: false },
  ],
  send_input: (id) => [{ id, text: "x" }],
  execute_task: (id) => [{ task: "x", continue_from: id }],
  get_result: (id) => [
    { id, wait_seconds: 0 },
    { id, cursor: 0 },
    { id, artifact: "changes.diff" },
    { id, artifact: "../changes.diff", cursor: 1 },
  ],
  list_runs: (id) => [{ sandbox }, { sandbox, cursor: id }, { kind: "task" }, { kind: "task", cursor: id }],
  cancel_run: (id) => [{ id }],
  list_sandboxes: () => [{}],
  checkpoint_sandbox: () => [{ sandbox }],
  restore_sandbox: () => [
    { sandbox, checkpoint },
    { sandbox: "theirs", checkpoint },
  ],
  configure_sandbox: () => [{ sandbox }, { sandbox, env: { SECRET: "overwritten" } }],
  destroy_sandbox: () => [{ sandbox, checkpoints: true }],
};

describe("the data of another principal", () => {
  it.each(tools.map(({ name }) => name))("is out of reach of %s", async (tool) => {
    const byID = /"id"|"continue_from"/.test(JSON.stringify(TRIES[tool]("x")));
    for (const [foreign, missing] of byID ? ids : ids.slice(0, 1)) {
      const tries = TRIES[tool](foreign);
      expect(tries).not.toEqual([]);
      for (const [index, args] of tries.entries()) {
        const answer = await attacker.call(tool, args);
        const text = JSON.stringify(answer);
        expect(text).not.toMatch(new RegExp(`${SECRET}|Input validation error`));
        const like = TRIES[tool](missing)[index] ?? {};
        if (!Object.values(args).includes(foreign)) continue;
        // The result must be the same as for an id that does not exist.
        const other = JSON.stringify(await attacker.call(tool, like));
        expect(text.replaceAll(foreign, "ID")).toBe(other.replaceAll(missing, "ID"));
      }
    }
    expect(await ownedData()).toEqual(before);
    expect(before).toMatchObject({
      file: `${SECRET}\n`,
      running: "state: running",
      task: expect.stringContaining("changes.diff"),
    });
  });

  it("is out of reach of resources", async () => {
    const ask = async (method: string, params: object) =>
      JSON.stringify((await attacker.post({ method, params })).messages);
    const read = (uri: string) => ask("resources/read", { uri });
    for (const path of ["secret", "/proc/1/root/workspace/secret", ""])
      expect(await read(`sandbox://${sandbox}/${path}`)).not.toContain(SECRET);
    // The name of the owner's actor leads to another actor: that of the attacker's own sandbox of this name.
    expect(await read(`sandbox://${await actorName(sandbox, owner.principalID)}/secret`)).toContain(
      "There is no /workspace/secret",
    );
    const complete = (uri: string, name: string, value: string, given: object) =>
      ask("completion/complete", {
        ref: { type: "ref/resource", uri },
        argument: { name, value },
        context: { arguments: given },
      });
    expect(await complete(FILE_TEMPLATE, "path", "s", { sandbox })).toContain('"values":[]');
    for (const [foreign, missing] of ids) {
      for (const name of ["", "log", "artifacts/changes.diff"]) {
        const [text, other] = await Promise.all([foreign, missing].map((id) => read(runURI(id, name))));
        expect(text?.replaceAll(foreign, "ID")).toBe(other?.replaceAll(missing, "ID"));
      }
      expect(await complete(RUN_TEMPLATE, "id", foreign.slice(0, -3), {})).toContain('"values":[]');
      expect(await complete(RUN_TEMPLATE, "name", "", { id: foreign })).toContain('"values":[]');
    }
    const listed = await ask("resources/list", {});
    expect(listed).toContain(`"sandbox://${sandbox}/"`);
    for (const hidden of ["secret", ...ids.map(([foreign]) => foreign)]) expect(listed).not.toContain(hidden);
  });

  it("is out of reach of GET /tasks/:taskId/result", async () => {
    for (const [foreign, missing] of ids) {
      const [a, b] = await Promise.all([foreign, missing].map((id) => attacker.http(`/tasks/${id}/result`)));
      expect(a?.status).toBe(404);
      expect(b?.status).toBe(404);
      expect(await a?.text()).toBe(await b?.text());
    }
  });
});
