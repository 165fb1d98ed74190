/** Tasks: evicted actors, dead containers, agents, definitions, files that they leave, permissions, and budgets. */
import { runInDurableObject } from "cloudflare:test";
import { beforeAll, describe, expect, it, vi } from "vitest";
import { IN_FLIGHT_MS, MAX_IN_FLIGHT, MAX_REQUESTS, TaskBudgets } from "../../../src/tasks/budget.ts";
import { DAY_MS } from "../../../src/shared/days.ts";
import {
  accountOf,
  actorOf,
  bucket,
  encode,
  objectsOf,
  evict,
  runInActor,
  owner,
  principal,
  sh,
  until,
  untilText,
  sleep,
} from "../support.ts";

/** Most tests use this sandbox, because each start takes half a second of processor time. */
const usual = "tasks";

interface Fields {
  id: string;
  state: string;
  note?: string;
  diff?: string;
  files?: { path: string }[];
  artifacts: { path: string }[];
  [key: string]: unknown;
}

async function execute(args: Record<string, unknown>): Promise<Fields> {
  const { structured, isError, text } = await owner.call("execute_task", args);
  if (isError) throw new Error(text);
  return structured as Fields;
}

/** Removes the files that earlier tasks created. */
const clear = () => sh(usual, "rm -f /workspace/begun /workspace/go-on /workspace/a.txt");

/** Waits until the task's first command has begun. */
async function firstCommandBegan(sandbox: string): Promise<void> {
  await until(async () => (await sh(sandbox, "cat /workspace/begun 2>/dev/null || true")) === "begun\n");
}

async function result(id: string): Promise<string> {
  return (await owner.call("get_result", { id })).text;
}

async function logOf(id: string): Promise<string> {
  return (await owner.call("get_result", { id, cursor: 0 })).text;
}

describe("when a task's actor is evicted", () => {
  it("the task continues, with nothing lost or repeated, also if no client calls and the actor is evicted twice", async () => {
    const { id } = await execute({ task: "[[work]] x", sandbox: usual, wait_seconds: 0 });
    await firstCommandBegan(usual);
    await evict(usual);
    await sh(usual, "(sleep 0.5; touch /workspace/go-on) >/dev/null 2>&1 &");
    await evict(usual);
    await sleep(2000);
    await evict(usual);
    const text = await result(id);
    for (const words of ["state: succeeded", "Worked through.", "created begun"])
      expect(text).toContain(words);
    const log = await logOf(id);
    for (const line of ["Started with", "Bash: echo begun", "Bash: echo second step", "Worked through."])
      expect(log.split(line)).toHaveLength(2);
  });

  it("the task can be cancelled afterwards", async () => {
    await clear();
    const { id } = await execute({ task: "[[wait]] x", sandbox: usual, wait_seconds: 0 });
    await firstCommandBegan(usual);
    await evict(usual);
    const { structured } = await owner.call("cancel_run", { id });
    expect(structured.state).toBe("cancelled");
    expect(await sh(usual, "pgrep -x 'claude|sleep' || echo none")).toBe("none\n");
  });
});

describe("tasks in one sandbox", () => {
  const sandbox = usual;

  it("run one after another, and each result has only the task's own changes", async () => {
    await clear();
    const first = await execute({ task: "[[work]] x", sandbox, wait_seconds: 0 });
    const second = await execute({ task: "[[write]] y", sandbox, wait_seconds: 0 });
    await firstCommandBegan(sandbox);
    await untilText(() => logOf(second.id), "Waiting for the earlier task in this sandbox");
    const third = await execute({ task: "[[write]] z", sandbox, wait_seconds: 0 });
    expect((await owner.call("cancel_run", { id: third.id })).structured).toMatchObject({
      state: "cancelled",
      note: "Cancelled before the agent started.",
    });
    await sh(sandbox, "touch /workspace/go-on");
    expect((await result(first.id)).match(/^created \S+/gm)).toEqual(["created begun", "created go-on"]);
    const text = await result(second.id);
    expect(text).toContain("created a.txt");
    expect(text).not.toContain("begun");
  });

  it("have the variables of the sandbox, which cannot replace their model", async () => {
    const env = { FOR_TASKS: "it's there", ANTHROPIC_BASE_URL: "http://127.0.0.1:9" };
    await owner.call("configure_sandbox", { sandbox, env });
    expect((await execute({ task: "[[variables]] x", sandbox })).state).toBe("succeeded");
    expect(await sh(sandbox, "cat /workspace/variables; echo $ANTHROPIC_BASE_URL")).toBe(
      "it's there\nhttp://127.0.0.1:9\n",
    );
  });
});

describe("OpenCode", () => {
  const sandbox = "other-agent";
  // A stub of OpenCode: sends one request to the model, adds a line to its database, and prints the database as its text. It adds
  // another line if its plugins' library is missing, or it may update something, because OpenCode would then ask a registry or another host.
  const STUB = `#!/bin/bash
    kept=~/.local/share/opencode/$OPENCODE_DB
    url=$(grep -o 'http://[^"]*' <<<"$OPENCODE_CONFIG_CONTENT")/messages
    ask='{"model":"m","max_tokens":9,"tools":[{"name":"bash"}],"messages":[{"role":"user","content":"[[defined]]"}]}'
    status=$(curl -s -o /dev/null -w '%{http_code}' -H "x-api-key: $ANTHROPIC_API_KEY" -d "$ask" "$url")
    mkdir -p "\${kept%/*}"
    configuration=~/.config/opencode
    [[ -d $configuration/node_modules ]] && grep -q '"@opencode-ai/plugin"' $configuration/package-lock.json || echo asks a registry >>"$kept"
    may_not=$OPENCODE_DISABLE_AUTOUPDATE$OPENCODE_DISABLE_MODELS_FETCH$OPENCODE_DISABLE_LSP_DOWNLOAD
    [[ $may_not = 111 ]] || echo asks hosts for updates >>"$kept"
    echo "\${ANTHROPIC_API_KEY%-*} $status $* < $(cat)" >>"$kept"
    echo '{"type":"step_start","part":{}}'
    printf '{"type":"text","part":{"text":"%s"}}\\n' "$(tr '\\n' ';' <"$kept")"
    echo '{"type":"step_finish","part":{"reason":"stop","cost":0.5,"tokens":{"input":3,"output":2}}}'`;

  it("reaches the model with a placeholder, and continues its own conversation in another sandbox", async () => {
    await owner.call("write_file", { sandbox, path: "bin/opencode", content: STUB });
    await sh(sandbox, "chmod +x bin/opencode");
    const PATH = `/workspace/bin:${(await sh(sandbox, 'printf %s "$PATH"')).trim()}`;
    await owner.call("configure_sandbox", { sandbox, env: { PATH } });
    const first = await execute({ task: "Do it.", sandbox, agent: "opencode", model: "m-1" });
    expect(first.answer).toMatch(
      /^sk-ant-placeholder\S* 200 run --format json --model anthropic\/m-1 < Do it\.;$/,
    );
    expect(first).toMatchObject({
      state: "succeeded",
      turns: 1,
      cost_usd: 0.5,
      tokens: { input: 3, output: 2 },
    });
    const other = { task: "x", continue_from: first.id, agent: "claude-code" };
    expect((await owner.call("execute_task", other)).text).toMatch(/was done by OpenCode/);
    await owner.call("destroy_sandbox", { sandbox });
    const { answer, id } = await execute({ task: "Go on.", continue_from: first.id });
    expect(id).not.toContain(sandbox);
    expect(String(answer).split(";")).toEqual([
      expect.stringMatching(/< Do it\.$/),
      expect.stringMatching(/200 run --format json --continue < Go on\.$/),
      "",
    ]);
  });

  it.each([
    [{ max_turns: 3 }, {}, /^OpenCode does not support max_turns/],
    [{ agents: ["reviewer"] }, {}, /^OpenCode does not support the parameters agents and commands/],
    [
      {},
      { ANTHROPIC_API_KEY: undefined, CLAUDE_CODE_OAUTH_TOKEN: "oat-a-token" },
      /^OpenCode needs ANTHROPIC_API_KEY/,
    ],
  ])(
    "is refused with arguments or credentials that it does not support: %j, %j",
    async (args, variables, words) => {
      const taskArgs = { task: "x", agent: "opencode", ...args };
      const { isError, text } = await owner.withVariables(variables).call("execute_task", taskArgs);
      expect({ isError, text }).toEqual({ isError: true, text: expect.stringMatching(words) });
    },
  );
});

describe("definitions that a task names", () => {
  const agent = (name: string, word: string) =>
    `---\nname: ${name}\ndescription: DEFINED-${word} looks for mistakes\n---\nLook for them.\n`;
  const command = (word: string) =>
    `---\ndescription: fixes it\n---\n[[defined]] DEFINED-${word} $ARGUMENTS\n`;
  const caller = owner.withVariables({ COMPONENTS: "offered/" });

  beforeAll(async () => {
    await bucket.put("offered/agents/reviewer.md", encode(agent("reviewer", "AGENT")));
    await bucket.put("offered/agents/nameless.md", encode(agent("another", "NAMELESS")));
    await bucket.put("offered/commands/fix.md", encode(command("COMMAND")));
    await bucket.put("offered/commands/large.md", encode("x".repeat(64 * 1024 + 1)));
    await bucket.put("offered/commands/deep/er.md", encode(command("DEEP")));
    await bucket.put("offered/commands/no name.md", encode(command("UNNAMED")));
  });

  it("come from the operator, and do not appear in the task's changes", async () => {
    const { text, structured } = await caller.call("list_sandboxes", {});
    expect(text).toContain(
      "agents for execute_task: nameless, reviewer\ncommands for execute_task: fix, large\n",
    );
    expect(structured).toMatchObject({
      task_agents: ["nameless", "reviewer"],
      task_commands: ["fix", "large"],
    });
    const named = { task: "[[defined]]", sandbox: usual, agents: ["reviewer"], commands: ["fix"] };
    const first = await caller.call("execute_task", named);
    const answer = "DEFINED-AGENT,DEFINED-COMMAND";
    expect(first.structured).toMatchObject({ answer, files: [] });
    // A task that continues this one has them too.
    const next = { task: "[[defined]]", continue_from: first.structured.id };
    expect((await caller.call("execute_task", next)).structured).toMatchObject({ answer });
  });

  it("come from the repository if it has one of that name, and the next task does not have them", async () => {
    await sh(
      usual,
      `git init -q /tmp/own && cd /tmp/own && mkdir -p .claude/agents/deep .claude/commands &&
       printf %s '${agent("reviewer", "OWN")}' > .claude/agents/deep/reviewer.md &&
       printf %s '${command("THEIRS")}' > .claude/commands/fix.md && touch '.claude/commands/a b.md' &&
       git add -A && git -c user.name=a -c user.email=a@b commit -qm one`,
    );
    const task = { task: "/fix 1", repository: "/tmp/own", sandbox: usual, agents: ["reviewer", "none"] };
    const { structured: unknown } = await caller.call("execute_task", task);
    expect(unknown).toMatchObject({
      state: "failed",
      note: '"There is no agents/none here; there is agents/reviewer, commands/fix". The operator offers agents/nameless, agents/reviewer, commands/fix, commands/large.',
    });
    await sh(usual, "rm -rf /workspace/own");
    const known = { ...task, agents: ["reviewer"], commands: ["fix"] };
    const { structured: redefined } = await caller.call("execute_task", known);
    expect(redefined.answer).toBe("DEFINED-THEIRS 1,DEFINED-OWN");
    expect(await logOf(String(redefined.id))).toContain("The workspace has a definition with the same name");
    for (const [agents, files] of [
      [["reviewer"], "reviewer.md\n"],
      [[], ""],
    ]) {
      await caller.call("execute_task", { task: "[[defined]]", sandbox: usual, agents });
      expect(await sh(usual, "ls ~/.claude/agents")).toBe(files);
    }
  });

  it.each([
    [
      { agents: ["none"] },
      /^There is no agents\/none\. The operator offers agents\/nameless, .*commands\/large\./,
    ],
    [{ commands: ["../agents/reviewer"] }, /^commands: "\.\.\/agents\/reviewer" is not the name/],
    [{ commands: ["deep/er"] }, /is not the name/],
    [{ agents: ["nameless"] }, /cannot be used: its front matter must have `name: nameless`/],
    [{ commands: ["large"] }, /larger than 65536 bytes/],
    [
      { agents: Array.from({ length: 11 }, (_, index) => `a${index}`) },
      /^agents has 11 names, and the limit is 10/,
    ],
  ])("are refused if the operator does not offer them or they are invalid: %j", async (named, words) => {
    const { isError, text } = await caller.call("execute_task", { task: "x", ...named });
    expect({ isError, text }).toMatchObject({ isError: true, text: expect.stringMatching(words) });
  });
});

describe("an invalid definition of the operator", () => {
  it("is named in the response over HTTP, and in the operator's log", async () => {
    await bucket.put("broken/agents/reviewer.md", encode("---\nname: another\n---\n"));
    const spy = vi.spyOn(console, "log").mockImplementation(() => {});
    try {
      const caller = owner.withVariables({ COMPONENTS: "broken", LOG_LEVEL: "warn" });
      const body = JSON.stringify({ task: "x", agents: ["reviewer"] });
      const response = await caller.http("/execute", { method: "POST", body });
      expect([response.status, await response.json()]).toEqual([
        400,
        {
          error:
            "The operator's agents/reviewer cannot be used: its front matter must have `name: reviewer`, like its file name. Leave it out.",
        },
      ]);
      const logged = spy.mock.calls.map(([line]) => JSON.parse(String(line)));
      expect(logged).toContainEqual(
        expect.objectContaining({ level: "warn", event: "component", component: "agents/reviewer" }),
      );
    } finally {
      spy.mockRestore();
    }
  });
});

describe("a task's files", () => {
  const sandbox = "names";

  it("are all named, also if they are not shown or cannot be artifacts", async () => {
    const { id, artifacts, diff } = await execute({ task: "[[many]] x", sandbox });
    expect(artifacts.map(({ path }) => path).slice(0, 3)).toEqual([
      "changes.diff",
      "changes.list",
      "file-001",
    ]);
    const text = await result(id);
    expect(text).toContain("... and 74 more, all in the artifact changes.list");
    for (const { path } of artifacts) expect(text).toContain(`\n${path} (`);
    expect(text).toMatch(/^link: a symbolic link$/m);
    expect(text).toContain(`\n${JSON.stringify('"caf\\351.txt"')}: its name is not UTF-8`);
    expect(text).toMatch(/^file-099: there are 100 artifacts already$/m);
    const list = (await owner.call("get_result", { id, artifact: "changes.list" })).text;
    expect(list.match(/^(created|changed|deleted) /gm)).toHaveLength(124);
    for (const line of [
      'created "caf\\351.txt" (6 bytes)',
      "created file-120 (4 bytes)",
      "created ř.txt (3 bytes)",
    ])
      expect(list.split("\n")).toContain(line);
    expect(diff).toContain('"b/caf\\351.txt"');
    const diffFile = (await owner.call("get_result", { id, artifact: "changes.diff" })).text;
    expect(diffFile).toContain('+++ "b/caf\\351.txt"');
  });

  it("may have names that are too long for the task's record, and the task still ends", async () => {
    const { id, state, files } = await execute({ task: "[[deep]] x", sandbox });
    expect(state).toBe("succeeded");
    expect(files?.length).toBeLessThan(50);
    const list = (await owner.call("get_result", { id, artifact: "changes.list" })).text;
    expect(list).toContain("created");
  });

  it("cannot be hidden by attributes that a repository gives them", async () => {
    await sh(
      sandbox,
      String.raw`git init -q /workspace && printf '*.py -diff\n*.sh ident\n*.c text eol=crlf\n' > .gitattributes &&
        printf 'first\n' > hidden.py && printf '$Id: first $\n' > hidden.sh && printf 'same\n' > hidden.c`,
    );
    const { files, diff } = await execute({ task: "[[attributes]] x", sandbox });
    expect(files?.map(({ path }) => path)).toEqual(["hidden.c", "hidden.py", "hidden.sh"]);
    for (const line of ["+same\r", "+changed", "+$Id: changed $"]) expect(diff?.split("\n")).toContain(line);
  });

  it("are shown if they are images; large ones only while the sandbox runs, which scales them down", async () => {
    const show = async (id: string, artifact: string) => owner.call("get_result", { id, artifact });
    const running = await execute({ task: "[[images]] x", sandbox });
    expect((await show(running.id, "2000.png")).content).toMatchObject([
      { text: expect.stringMatching(/^\[2000\.png: 1238 x 928 pixels.* smaller from 2000 x 1500 pixels/) },
      { type: "image", mimeType: "image/png" },
    ]);
    await owner.call("destroy_sandbox", { sandbox });
    expect((await show(running.id, "3.png")).content).toMatchObject([
      { text: "[3.png: 3 x 2 pixels, PNG.]" },
      { type: "image", mimeType: "image/png" },
    ]);
    expect(await show(running.id, "2000.png")).toMatchObject({
      isError: true,
      text: expect.stringMatching(/2000 x 1500 pixels, PNG, \d+ bytes.*its sandbox.*does not run.*Download/s),
    });
  });
});

describe("when sandboxd is killed before a task's agent starts and after it has ended", () => {
  /** Kills sandboxd when each of these files of the task appears, from a command that the next sandboxd takes over. */
  const KILL = `cd /var/lib/sandbox-mcp
    for file in git changes.list changes.diff; do
      until [ -e tasks/*/$file ]; do sleep 0.01; done
      pkill -9 -x sbxd
    done; true`;

  it("the task's files are complete, kept in R2, and deleted with the task's record", async () => {
    const sandbox = "killed-after";
    const killer = await owner.call("run_command", { command: KILL, sandbox, wait_seconds: 0 });
    const { id, state, note, diff, artifacts } = await execute({ task: "[[big]] x", sandbox });
    expect({ state, note }).toEqual({
      state: "succeeded",
      note: "The archive leaves out 2000000 bytes (files: 1), among them node_modules: they are lost when the sandbox is destroyed.",
    });
    expect(diff).toContain("small.txt");
    expect(artifacts.map(({ path }) => path)).toEqual(["changes.diff", "big.bin", "small.txt"]);
    const killed = await owner.call("get_result", { id: killer.structured.id });
    expect(killed.structured.state).toBe("succeeded");
    const objects = () => objectsOf(id);
    expect(new Set((await objects()).map((key) => key.split("/")[2]))).toEqual(new Set(["artifacts"]));
    const archived = () =>
      runInDurableObject(accountOf(owner), (_account, { storage }) =>
        storage.sql.exec("SELECT part FROM archives WHERE run = ? ORDER BY part", id).toArray(),
      );
    expect(await archived()).toEqual([{ part: "conversation" }, { part: "workspace" }]);
    const binary = await owner.call("get_result", { id, artifact: "big.bin" });
    expect(binary.text).toMatch(/^\[big\.bin is not UTF-8 text: 3000000 bytes, .*get_result with cursor 0/);
    expect(binary.text.length).toBeLessThan(1500);
    const bytes = await owner.call("get_result", { id, artifact: "big.bin", cursor: 0 });
    expect(bytes.text).toMatch(/bytes 0 to 49152 of 3000000 in base64. Go on with cursor 49152/);

    await owner.call("destroy_sandbox", { sandbox });
    const next = await execute({ task: "[[write]] y", continue_from: id });
    expect(next.state).toBe("succeeded");
    expect(await logOf(next.id)).toContain("Restoring the workspace");

    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 31 * DAY_MS });
    try {
      await (await actorOf(sandbox)).evictRuns(Infinity, Date.now() - 30 * DAY_MS);
      expect((await owner.call("list_runs", { kind: "task" })).text).not.toContain(id);
    } finally {
      vi.useRealTimers();
    }
    expect(await objects()).toEqual([]);
    expect(await archived()).toEqual([]);
    expect((await owner.call("get_result", { id })).isError).toBe(true);
  });
});

describe("a task that starts from a checkpoint", () => {
  it("works on a copy of the files, which is deleted after the task", async () => {
    const sandbox = "prepared";
    await owner.call("configure_sandbox", { sandbox, internet: "none" });
    await sh(sandbox, "mkdir kept; echo one > kept/one; echo before > a.txt");
    const { structured } = await owner.call("checkpoint_sandbox", { sandbox });
    const { checkpoint } = structured;
    await sh(sandbox, "rm -r kept");
    const { id, diff, state } = await execute({ task: "[[write]] x", checkpoint });
    const [sandboxName = ""] = id.split(".");
    expect({ state, diff }).toEqual({
      state: "succeeded",
      diff: expect.stringMatching(/-before\n\+written/),
    });
    expect(await sh(sandbox, "ls; cat a.txt")).toBe("a.txt\nbefore\n");
    await until(async () => !(await owner.call("list_sandboxes")).text.includes(sandboxName));

    // A task that continues this one has the same network policy.
    const next = await execute({ task: "[[wait]] y", continue_from: id, wait_seconds: 0 });
    const [nextOwn = ""] = next.id.split(".");
    const { structured: settings } = await owner.call("configure_sandbox", { sandbox: nextOwn });
    expect(settings.internet).toBe("none");
    await owner.call("cancel_run", { id: next.id });

    const other = await principal("other-tasker", ["tasks:run"]);
    const refused = await other.call("execute_task", { task: "[[write]] x", checkpoint });
    expect(refused.text).toContain(`There is no checkpoint ${checkpoint}.`);
  });
});

it("a task for a client that declares MCP's Tasks extension is a task of MCP at once, and lists have it once", async () => {
  await clear();
  await (await actorOf(usual)).listRuns({ principalID: "owner", sandbox: usual }, 1);
  const { result: made } = await owner.sendModern("tools/call", {
    name: "execute_task",
    arguments: { task: "[[write]]", sandbox: usual },
  });
  expect(made).toMatchObject({ resultType: "task", status: "working" });
  const id = made?.taskId;
  const get = async () => (await owner.sendModern("tasks/get", { taskId: id })).result;
  await until(async () => (await get())?.status === "completed");
  expect(JSON.stringify((await get())?.result)).toMatch(/state: succeeded.*created a\.txt/);
  const first = await owner.call("list_runs", { kind: "task", limit: 1 });
  expect(first.structured).toMatchObject({
    runs: [{ id, kind: "task", state: "succeeded" }],
    next_cursor: id,
  });
  const rest = await owner.call("list_runs", { kind: "task", cursor: id, limit: 200 });
  expect([rest.isError, rest.text]).toEqual([false, expect.not.stringContaining(String(id))]);
});

it("the scope tasks:run is needed to start, read and cancel a task, and is not enough for other runs", async () => {
  const ID = "default.01m7w10c4v0brrp65wgryrkjhs";
  const tasker = await principal("tasker", ["tasks:run"]);
  const reader = await principal("reader", ["sandbox:read", "sandbox:exec"]);
  expect((await reader.send("execute_task", { task: "x" })).status).toBe(403);
  expect((await tasker.send("execute_task", { task: "x", checkpoint: "c" })).status).toBe(200);
  for (const tool of ["get_result", "cancel_run"]) {
    expect((await tasker.send(tool, { id: `${ID}t` })).status).toBe(200);
    expect((await tasker.send(tool, { id: ID })).status).toBe(403);
    expect((await reader.send(tool, { id: `${ID}t` })).status).toBe(403);
    expect((await reader.send(tool, { id: ID })).status).toBe(200);
  }
});

describe("execute_task refuses wrong arguments", () => {
  it.each([
    [{ task: "" }, /task/],
    [{ task: "x", repository: "--upload-pack=touch /tmp/x" }, /repository/],
    [{ task: "x", branch: "-b" }, /branch/],
    [{ task: "x", branch: "main" }, /branch needs repository/],
    [{ task: "x", repository: "ftp://a.example/b.git" }, /address that git clone takes/],
    [{ task: "x", model: "--resume" }, /model/],
    [{ task: "x", timeout_seconds: 30_000 }, /timeout_seconds/],
    [{ task: "x", agent: "other" }, /agent/],
    [
      { task: "x", continue_from: "default.01m7w10c4v0brrp65wgryrkjhst", repository: "https://a/b" },
      /repository and continue_from cannot be used together/,
    ],
    [
      { task: "x", checkpoint: "c", continue_from: "default.01m7w10c4v0brrp65wgryrkjhst" },
      /checkpoint and continue_from cannot be used together/,
    ],
    [
      { task: "x", checkpoint: "c", sandbox: "named" },
      /checkpoint and sandbox cannot be used together.*restore_sandbox/s,
    ],
    [{ task: "x", checkpoint: "c" }, /There is no checkpoint c\./],
  ])("%j", async (args, words) => {
    const { isError, text } = await owner.call("execute_task", args);
    expect({ isError, text }).toEqual({ isError: true, text: expect.stringMatching(words) });
  });
});

it("a task makes a limited number of requests to the model", async () => {
  await runInActor("requests", async (_actor, { storage }) => {
    const budgets = new TaskBudgets(storage.sql);
    const key = await budgets.open("a", 1000);
    expect(await budgets.admit(key)).toEqual({ call: { run: "a", number: 1 } });
    storage.sql.exec("UPDATE task_budgets SET requests = ?", MAX_REQUESTS - 1);
    expect(await budgets.admit(key)).toEqual({ call: { run: "a", number: MAX_REQUESTS } });
    expect(await budgets.admit(key)).toEqual({
      refused: expect.stringContaining(`${MAX_REQUESTS} requests`),
    });
    expect(budgets.spending("a")).toMatchObject({ requests: MAX_REQUESTS, isExhausted: true });
  });
});

describe("simultaneous requests to the model", () => {
  const BUSY = { refused: expect.stringContaining(`${MAX_IN_FLIGHT} requests`), busy: true };

  /** A budget of `tokens` with the maximum of requests in progress. */
  async function makeBudget(storage: DurableObjectStorage, tokens: number) {
    const budgets = new TaskBudgets(storage.sql);
    const key = await budgets.open("a", tokens);
    const calls = await Promise.all(Array.from({ length: MAX_IN_FLIGHT + 3 }, () => budgets.admit(key)));
    const admitted = calls.flatMap((admission) => ("call" in admission ? [admission.call] : []));
    expect(admitted).toHaveLength(MAX_IN_FLIGHT);
    return { budgets, key, admitted };
  }

  it("exceed a task's tokens by at most the requests in progress", async () => {
    await runInActor("in-flight", async (_actor, { storage }) => {
      const { budgets, key, admitted } = await makeBudget(storage, 100);
      expect(await budgets.admit(key)).toEqual(BUSY);
      expect(budgets.spending("a")).toMatchObject({ isExhausted: false, upstream: undefined });
      for (const call of admitted) budgets.finishRequest(call, { tokens: 60 });
      expect(budgets.spending("a")).toEqual({
        requests: MAX_IN_FLIGHT,
        tokens: MAX_IN_FLIGHT * 60,
        isExhausted: false,
      });
      expect(await budgets.admit(key)).toEqual({ refused: expect.stringContaining("100 tokens") });
    });
  });

  it("no longer include a request that ended, however it ended, and each one counts once", async () => {
    await runInActor("in-flight-over", async (_actor, { storage }) => {
      const { budgets, key, admitted } = await makeBudget(storage, 1000);
      const [first, second] = admitted;
      if (!first || !second) throw new Error("no request was admitted");
      budgets.finishRequest(first, { tokens: 5, error: { status: 529, message: "overloaded" } });
      budgets.finishRequest(second, { tokens: 0, cut: true });
      for (const call of [first, second]) budgets.finishRequest(call, { tokens: 5 });
      expect(budgets.spending("a")).toMatchObject({ tokens: 5, upstream: { status: 529 } });
      expect(await budgets.admit(key)).toHaveProperty("call");
      expect(await budgets.admit(key)).toHaveProperty("call");
      // The next actor counts the same requests.
      expect(await new TaskBudgets(storage.sql).admit(key)).toEqual(BUSY);
      // Nothing reports the end of a request if its Worker ended.
      storage.sql.exec("UPDATE model_calls SET began_at = began_at - ?", IN_FLIGHT_MS);
      expect(await budgets.admit(key)).toHaveProperty("call");
      budgets.close("a");
      expect(storage.sql.exec("SELECT * FROM model_calls").toArray()).toEqual([]);
    });
  });
});
