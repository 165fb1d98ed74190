/**
 * Tasks with the real agent in real sandboxes. The model behind the egress is scripted. Each task takes three seconds of processor
 * time. tests/worker/tasks has the tests that do not need the real agent, and tests/e2e/clients.test.ts and pull-request.ts in it have
 * real clients that give tasks.
 */
import { afterAll, describe, expect, it } from "vitest";
import type { MessagesAPI } from "../setup/messages-api.ts";
import { pidOf, tree, waitForEnd } from "../setup/processes.ts";
import { bash, playScenarios, say, type Scenario, use } from "../setup/scripted-agent.ts";
import { endLater } from "../setup/end-later.ts";
import { startServer } from "../setup/server.ts";
import { sleep, until } from "../setup/until.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import { TaskClient } from "./task-client.ts";

const KEY = "sk-ant-the-real-key-0123456789";

/** Searches files and the memory of processes for the key, and counts the processes whose memory contains the placeholder. */
const MEMORY = `
import os, re
key, placeholder = b"-".join([b"the", b"real", b"key"]), b"sk-ant-" + b"placeholder"
found, held = [], 0
for top in ("/root", "/tmp", "/etc", "/workspace", "/var", "/opt/sandbox-mcp", "/run"):
    for directory, _, names in os.walk(top):
        for name in names:
            path = os.path.join(directory, name)
            if os.path.isfile(path) and key in open(path, "rb").read():
                found.append(path)
for pid in filter(str.isdigit, os.listdir("/proc")):
    if int(pid) == os.getpid():
        continue
    try:
        ranges = [line.split() for line in open(f"/proc/{pid}/maps")]
        memory = open(f"/proc/{pid}/mem", "rb", 0)
    except OSError:
        continue
    holds = False
    for place, mode, *rest in ranges:
        start, end = (int(part, 16) for part in place.split("-"))
        if "rw" not in mode or end - start > 1 << 28:
            continue
        try:
            memory.seek(start)
            content = memory.read(end - start)
        except (OSError, ValueError, OverflowError):
            continue
        if key in content:
            found.append(f"memory of {pid}")
        holds = holds or placeholder in content
    held += holds
open("/workspace/found.txt", "w").write("\\n".join(found))
open("/workspace/held.txt", "w").write(str(held))
`;

const scenarios: Record<string, Scenario> = {
  write: [
    use("Write", { file_path: "/workspace/notes/a.txt", content: "first\n" }, "I will write the file."),
    bash("wc -l notes/a.txt; ls no-such-file"),
    say("All is written."),
  ],
  fix: [
    bash("cat sum.py"),
    use("Edit", { file_path: "/workspace/origin/sum.py", old_string: "a - b", new_string: "a + b" }),
    bash(
      "mkdir -p build && echo made > build/out.bin && echo new > extra.txt && git rm -q old.txt && git -c user.name=a -c user.email=a@b commit -qam fixed",
    ),
    say("Fixed the sum."),
  ],
  remember: [
    use("Write", { file_path: "/workspace/word.txt", content: "xylophone\n" }),
    say("The word is xylophone."),
  ],
  recall: [bash("cat word.txt >> copy.txt && echo again >> copy.txt"), say("It was xylophone.")],
  resume: [bash("cat started > copy.txt"), say("It was started.")],
  forever: (_request, turn) => bash(`echo turn ${turn}`),
  sleep: [bash("echo started > /workspace/started; sleep 300"), say("woke up")],
  redirected: () => ({
    status: 307,
    error: { type: "redirect", message: "over there" },
    headers: { location: `${api.url}/elsewhere/v1/messages` },
  }),
  nested: [
    bash(
      "for d in inner module; do echo changed >> $d/kept.txt; echo 'neu' > $d/'größe \"x\".txt'; done; git init -q apart && echo new > apart/new.txt",
    ),
    say("nested"),
  ],
  expensive: (_request, turn) => ({
    blocks: [{ type: "tool_use", name: "Bash", input: { command: `echo ${turn}`, description: "x" } }],
    usage: { input: 40_000, output: 20_000 },
  }),
  snoop: [
    bash(
      [
        "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' > /tmp/seen",
        "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' >> /tmp/seen",
        "grep -rhs sk-ant /root /tmp /etc /workspace /var/lib/sandbox-mcp >> /tmp/seen",
        "cp /tmp/seen seen.txt; grep -o 'sk-ant-placeholder-[A-Za-z0-9_-]\\{20,\\}' seen.txt | sort -u > placeholders.txt",
        "python3 - <<'EOF'",
        MEMORY,
        "EOF",
        "true",
      ].join("\n"),
    ),
    say("looked"),
  ],
};

/** How long a task is repeated with twice the timeout: 16 s, 32 s and 64 s. */
const CONTINUED_MS = 110_000;

/** The settings of the restarted server. */
const RESTARTED = {
  ANTHROPIC_API_KEY: undefined,
  CLAUDE_CODE_OAUTH_TOKEN: "oat-real",
  WORKSPACE_SAVE: "off",
};

const api: MessagesAPI = endLater(await playScenarios(scenarios));
const options = {
  flags: ["--verbose", "--state-dir", temporaryDirectory()],
  env: { ANTHROPIC_API_KEY: KEY, ANTHROPIC_UPSTREAM_URL: api.url, MAX_TASK_TOKENS: "150000" },
};
let server = await startServer(options);
afterAll(() => server.stop());
const client = new TaskClient(server.url);

describe("a task in a fresh sandbox", () => {
  let id: string;
  const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

  it("returns the answer, the changes and the cost, and reports progress", async () => {
    const { fields, progress, text } = await client.call(
      "execute_task",
      { task: "[[write]] Write a file" },
      { traceparent, tracestate: "vendor=one" },
    );
    expect(fields).toMatchObject({
      state: "succeeded",
      success: true,
      answer: "All is written.",
      files: [{ path: "notes/a.txt", change: "created", size: 6 }],
      turns: 3,
      tokens: { input: 30, output: 15 },
    });
    id = fields.id;
    expect(fields.cost_usd).toBeGreaterThan(0);
    expect(fields.artifacts.map(({ path }) => path)).toEqual(["changes.diff", "notes/a.txt"]);
    expect(fields.session_id).toMatch(/^[0-9a-f-]{36}$/);
    expect(fields.diff).toContain("+++ b/notes/a.txt\n@@ -0,0 +1 @@\n+first\n");
    expect(progress).toEqual(
      expect.arrayContaining([
        "I will write the file.",
        "→ Write notes/a.txt",
        expect.stringMatching(/^→ Bash: wc -l/),
        expect.stringMatching(/^ {2}failed: Exit code 2/),
      ]),
    );
    expect(text).toContain("All is written.");
  });

  it("passes the trace of its caller on to the model", () => {
    const sent = api.requests.map(({ headers }) => [headers.traceparent, headers.tracestate]);
    expect(sent.length).toBeGreaterThan(2);
    for (const one of sent) expect(one).toEqual([traceparent, "vendor=one"]);
  });

  it("keeps its files as artifacts after the sandbox is gone", async () => {
    await expect
      .poll(async () => (await client.call("list_sandboxes", {})).text)
      .not.toContain(id.split(".")[0]);
    expect((await client.call("get_result", { id, artifact: "notes/a.txt" })).text).toContain("\nfirst\n");
    expect((await client.call("get_result", { id, artifact: "changes.diff", cursor: 5 })).text).toContain(
      "notes/a.txt",
    );
    const missing = await client.call("get_result", { id, artifact: "nothing" });
    expect(missing).toMatchObject({ isError: true });
    expect(missing.text).toContain("notes/a.txt");
    expect((await client.call("get_result", { id, cursor: 0 })).text).toContain("Write notes/a.txt");
    expect((await client.call("get_result", { id })).text).toContain("All is written.");
    expect((await client.call("list_runs", { kind: "task" })).text).toContain(`${id} task succeeded`);
  });
});

describe("a task on a repository", () => {
  it("clones it, works in the clone and returns the diff, with or without commits", async () => {
    await client.sh(
      "repo",
      `git init -q /tmp/seed && cd /tmp/seed && printf 'def total(a, b):\\n    return a - b\\n' > sum.py && echo old > old.txt && echo build > .gitignore &&
       git add -A && git -c user.name=a -c user.email=a@b commit -qm one && git branch work && git clone -q --bare . /workspace/origin.git`,
    );
    const { fields } = await client.call("execute_task", {
      task: "[[fix]] Fix the sum",
      repository: "/workspace/origin.git",
      branch: "work",
      sandbox: "repo",
    });
    expect(fields).toMatchObject({
      state: "succeeded",
      directory: "/workspace/origin",
      files: [
        { path: "extra.txt", change: "created", size: 4 },
        { path: "old.txt", change: "deleted", size: 0 },
        { path: "sum.py", change: "changed" },
      ],
    });
    expect(fields.diff).toContain("-    return a - b\n+    return a + b\n");
    expect(fields.diff).not.toContain("out.bin");
    expect(await client.sh("repo", "cat /workspace/origin/sum.py")).toContain("a + b");
    expect(await client.sh("repo", "git -C /workspace/origin status --porcelain")).toBe("?? extra.txt\n");
  });

  it("reports why a repository cannot be cloned", async () => {
    const removed = await client.call("execute_task", {
      task: "[[write]] x",
      repository: "/workspace/nothing-here.git",
    });
    expect(removed.fields).toMatchObject({ state: "failed", success: false });
    expect(removed.fields.note).toMatch(/could not clone \/workspace\/nothing-here.git: .*does not exist/);
    const branch = await client.call("execute_task", {
      task: "[[write]] x",
      repository: "/workspace/origin.git",
      branch: "no-such-branch",
      sandbox: "repo",
    });
    expect(branch.fields.note).toContain("already holds files");
    await client.sh("repo", "rm -rf /workspace/origin");
    const continued = await client.call("execute_task", {
      task: "[[write]] x",
      repository: "/workspace/origin.git",
      branch: "no-such-branch",
      sandbox: "repo",
    });
    expect(continued.fields.note).toMatch(/branch no-such-branch: .*not found/);
  });
});

// These two suites run at the same time.
describe.concurrent("when a task does not succeed", () => {
  // The first test, because the others run while it waits.
  it("the server stops it at its timeout, and the next task continues in a fresh sandbox with its files and conversation", async () => {
    let seconds = 8;
    const stopped = await until(async () => {
      seconds *= 2;
      const { fields } = await client.call("execute_task", { task: "[[sleep]] x", timeout_seconds: seconds });
      expect(fields.state).toBe("timed_out");
      // On a busy machine the agent may not have started in time.
      return fields.files?.length ? fields : undefined;
    }, CONTINUED_MS);
    expect(stopped.files).toMatchObject([{ path: "started", change: "created" }]);
    expect(stopped.note).toMatch(
      RegExp(`did not finish within ${seconds} s.*timeout_seconds.*continue_from`),
    );
    const { fields: next } = await client.call("execute_task", {
      task: "[[resume]] What was it?",
      continue_from: stopped.id,
    });
    expect(next).toMatchObject({
      state: "succeeded",
      answer: "It was started.",
      session_id: stopped.session_id,
      files: [{ path: "copy.txt", change: "created", size: 8 }],
    });
    expect(next.id.split(".")[0]).not.toBe(stopped.id.split(".")[0]);
    const request = api.requests.find(({ body }) => JSON.stringify(body.messages).includes("[[resume]]"));
    expect(JSON.stringify(request?.body.messages)).toContain("sleep 300");
  });

  it.each([
    ["redirected", /status 307, "over there"/],
    ["expensive", /used up its budget for the model \(\d+ tokens in \d requests\).*MAX_TASK_TOKENS/],
  ])("its note says why and what to do: %s", async (scenario, words) => {
    const { fields, isError } = await client.call("execute_task", { task: `[[${scenario}]] Do it` });
    expect({ state: fields.state, success: fields.success, isError }).toEqual({
      state: "failed",
      success: false,
      isError: false,
    });
    expect(fields.note).toMatch(words);
    // The key is not sent to the address of the redirect.
    expect(api.requests.map(({ path }) => path)).not.toContain("/elsewhere/v1/messages");
  });

  it("its note says that it used up its turns", async () => {
    const { fields } = await client.call("execute_task", { task: "[[forever]] x", max_turns: 2 });
    expect(fields.state).toBe("failed");
    expect(fields.note).toMatch(/used up its turns \(max_turns: 2\).*continue_from/);
  });

  it("a task that runs cannot be continued, and cancelling it ends all its processes", async () => {
    const { fields } = await client.call("execute_task", {
      task: "[[sleep]] x",
      sandbox: "stopped",
      wait_seconds: 0,
    });
    await until(() => client.sh("stopped", "cat /workspace/started 2>/dev/null || true"), 150_000);
    const continueFrom = (id: string) =>
      client.call("execute_task", { task: "[[recall]] y", continue_from: id });
    expect(await continueFrom(fields.id)).toMatchObject({
      isError: true,
      text: expect.stringContaining("still running"),
    });
    const unknown = { isError: true, text: expect.stringContaining("There is no run") };
    expect(await continueFrom(`${fields.id}x`)).toMatchObject(unknown);
    const cancelled = await client.call("cancel_run", { id: fields.id });
    expect(cancelled.fields.state).toBe("cancelled");
    expect(await client.sh("stopped", "pgrep -x 'claude|sleep' || echo none")).toBe("none\n");
  });

  it("its note says that the agent is missing or prints garbage", async () => {
    const path = (value: string) =>
      `printf 'cd /workspace\\nexport HOME=/root PATH=${value}\\n' > /var/lib/sandbox-mcp/sessions/_task`;
    await client.sh("bare", path("/usr/bin:/bin"));
    const without = await client.call("execute_task", { task: "[[write]] x", sandbox: "bare" });
    expect(without.fields.note).toMatch(/has no Claude Code: the program claude is not installed/);
    // The session's next shell is already prepared, with the old PATH, so the next task gets a new sandbox.
    await client.call("destroy_sandbox", { sandbox: "bare" });
    await client.sh(
      "bare",
      "mkdir -p /opt/fake && printf '#!/bin/sh\\nseq 100000\\necho not json >&2\\nexit 3\\n' > /opt/fake/claude && chmod +x /opt/fake/claude",
    );
    await client.sh("bare", path("/opt/fake:/usr/bin:/bin"));
    const garbage = await client.call("execute_task", { task: "[[write]] x", sandbox: "bare" });
    expect(garbage.fields.note).toMatch(
      /ended with status 3 and its output could not be parsed\. The output begins with: "1"\./,
    );
    expect(garbage.text.length).toBeLessThan(5000);
  });
});

describe.concurrent("changes of a task", () => {
  it("are seen in a submodule and in repositories inside the repository, and another task can continue there", async () => {
    await client.sh(
      "outer",
      `export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
     git init -q /tmp/part && echo kept > /tmp/part/kept.txt && git -C /tmp/part add -A && git -C /tmp/part commit -qm one &&
     git init -q . && git -c protocol.file.allow=always submodule --quiet add /tmp/part module && git commit -qm one &&
     git init -q inner && echo kept > inner/kept.txt && git -C inner add -A`,
    );
    const { fields } = await client.call("execute_task", { task: "[[nested]] x", sandbox: "outer" });
    expect(fields.files).toEqual([
      { path: "apart/new.txt", change: "created", size: 4 },
      { path: 'inner/größe "x".txt', change: "created", size: 4 },
      { path: "inner/kept.txt", change: "changed", size: 13 },
      { path: 'module/größe "x".txt', change: "created", size: 4 },
      { path: "module/kept.txt", change: "changed", size: 13 },
    ]);
    expect(fields.diff).toContain(
      "--- a/inner/kept.txt\n+++ b/inner/kept.txt\n@@ -1 +1,2 @@\n kept\n+changed\n",
    );
    expect(fields.artifacts).toContainEqual({ path: 'inner/größe "x".txt', size: 4 });

    // continue_from continues in the task's sandbox if that still exists.
    await client.sh("outer", "echo -n changed-since > word.txt");
    const next = await client.call("execute_task", { task: "[[recall]] y", continue_from: fields.id });
    expect(next.fields.id).toMatch(/^outer\./);
    expect(next.fields.session_id).toBe(fields.session_id);
    expect(await client.sh("outer", "cat copy.txt")).toContain("changed-since");
  });
});

describe("the credential", () => {
  it("is nowhere in the sandbox, and the placeholder is refused after the task", async () => {
    const { fields } = await client.call("execute_task", { task: "[[snoop]] Look", sandbox: "snoop" });
    expect(fields.state).toBe("succeeded");
    const [seen, placeholders, found, held] = await Promise.all(
      ["seen.txt", "placeholders.txt", "found.txt", "held.txt"].map((file) =>
        client.sh("snoop", `cat /workspace/${file}`),
      ),
    );
    expect(placeholders?.trim().split("\n")).toHaveLength(1);
    expect(seen).toContain("ANTHROPIC_BASE_URL=http://anthropic.internal");
    expect(seen).not.toContain(KEY);
    expect(found).toBe("");
    // The same search finds the placeholder, which the agent has.
    expect(Number(held)).toBeGreaterThan(0);
    const ask = (key: string) =>
      client.sh(
        "snoop",
        `curl -s -o /dev/null -w '%{http_code}' -H 'x-api-key: ${key}' -d '{}' http://anthropic.internal/v1/messages`,
      );
    expect(await ask(placeholders?.trim() ?? "")).toBe("403");
    expect(await ask("sk-ant-anything")).toBe("403");
    expect(await ask(KEY)).toBe("403");
  });

  it("replaces the placeholder in requests to the model's API", () => {
    expect(api.requests.length).toBeGreaterThan(0);
    for (const { headers, path } of api.requests) {
      expect(headers["x-api-key"]).toBe(KEY);
      expect(path).toMatch(/^\/v1\/messages(\/count_tokens)?$/);
      expect(JSON.stringify(headers)).not.toContain("placeholder");
    }
  });

  it("is in nothing that the server prints", () => {
    const printed = server.stdout() + server.stderr();
    expect(printed).toContain('"tool":"execute_task"');
    expect(printed).not.toContain(KEY);
  });
});

describe("when the server is killed in the middle of a task", () => {
  it("the task's record says after the restart what happened, and has the agent's text until then", async () => {
    const { fields } = await client.call("execute_task", { task: "[[sleep]] x", wait_seconds: 0 });
    const log = async (from: typeof client) =>
      (await from.call("get_result", { id: fields.id, cursor: 0 })).text;
    await expect.poll(() => log(client)).toContain("Bash: echo started");
    // The server stores output within a second.
    await sleep(1500);
    const all = tree(server.child.pid ?? 0);
    const agents = all.filter(({ command }) => command.startsWith("claude -p --output-format stream-json"));
    expect(agents).toHaveLength(1);
    process.kill(pidOf("start", all), "SIGKILL");
    await server.exited;
    expect(await waitForEnd(agents)).toEqual([]);
    expect(await waitForEnd(all)).toEqual([]);

    server = await startServer({ ...options, env: { ...options.env, ...RESTARTED } });
    const nextClient = new TaskClient(server.url);
    const result = await nextClient.call("get_result", { id: fields.id });
    expect(result.text).toContain("state: lost");
    expect(result.text).toContain("stopped while the server was down");
    expect(await log(nextClient)).toContain("Bash: echo started");
    expect((await nextClient.call("list_runs", { kind: "task" })).text).toContain(`${fields.id} task lost`);
  });
});

// The restarted server has these settings.
it("the credential can be a token instead of a key, and a task can be continued without saved workspaces", async () => {
  const before = api.requests.length;
  const nextClient = new TaskClient(server.url);
  const { fields } = await nextClient.call("execute_task", { task: "[[remember]] x" });
  const next = await nextClient.call("execute_task", { task: "[[recall]] y", continue_from: fields.id });
  const refused = await nextClient.call("checkpoint_sandbox", {});
  expect(next.fields).toMatchObject({ answer: "It was xylophone.", session_id: fields.session_id });
  expect(refused.text).toContain("does not save workspaces");
  const sent = api.requests.slice(before);
  expect(sent.length).toBeGreaterThan(0);
  for (const { headers } of sent) {
    expect(headers["x-api-key"]).toBeUndefined();
    expect(headers.authorization).toBe("Bearer oat-real");
    expect(headers["anthropic-beta"]).toContain("oauth-2025-04-20");
  }
});
