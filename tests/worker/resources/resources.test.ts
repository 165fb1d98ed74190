/** MCP resources: the server lists, reads and completes files of sandboxes and the logs and artifacts of runs. */
import { beforeAll, describe, expect, it, onTestFinished, vi } from "vitest";
import { RunOutputs } from "../../../src/actors/run-outputs.ts";
import type { TaskDetail } from "../../../src/runs/task-detail.ts";
import { PANEL_URI } from "../../../src/shared/apps.ts";
import { CALL_BYTES, MAX_HELD_BYTES } from "../../../src/shared/limits.ts";
import { RequestMemory } from "../../../src/shared/request-memory.ts";
import { MAX_RESOURCE_URI } from "../../../src/shared/resource-uri.ts";
import {
  type Caller,
  accountOf,
  isRunning,
  killContainer,
  owner,
  principal,
  sh,
  until,
  stopWhenIdle,
  untilStopped,
} from "../support.ts";

const sandbox = "resources";
const FILES = "sandbox://{sandbox}/{+path}";
const RUNS = "sandbox://runs/{id}/{+name}";
const SKILLS = "skill://{+path}";

interface Listed {
  uri: string;
  name: string;
  title?: string;
  mimeType?: string;
  size?: number;
}

interface Contents {
  uri: string;
  mimeType?: string;
  text?: string;
  blob?: string;
}

const list = (caller: Caller, cursor?: string) =>
  caller.result<{ resources: Listed[]; nextCursor?: string }>({
    method: "resources/list",
    params: { cursor },
  });

/** All pages of a list. It can have several, because other test files leave sandboxes of the owner. */
async function listAll(caller: Caller): Promise<Listed[]> {
  const { resources, nextCursor } = await list(caller);
  const all = [...resources];
  for (let cursor = nextCursor; cursor !== undefined;) {
    const page = await list(caller, cursor);
    all.push(...page.resources);
    cursor = page.nextCursor;
  }
  return all;
}

async function read(uri: string): Promise<Contents> {
  const { contents } = await owner.result<{ contents: Contents[] }>({
    method: "resources/read",
    params: { uri },
  });
  expect(contents).toHaveLength(1);
  return contents[0] ?? { uri: "" };
}

/** The error for an address that cannot be read. */
async function refusal(uri: string, caller = owner): Promise<{ code?: number; message?: string }> {
  const { messages } = await caller.post({ method: "resources/read", params: { uri } });
  expect(messages[0]?.result).toBeUndefined();
  return messages[0]?.error ?? {};
}

async function complete(
  template: string,
  name: string,
  value: string,
  given: Record<string, string> = {},
  caller = owner,
): Promise<string[]> {
  const { completion } = await caller.result<{ completion: { values: string[] } }>({
    method: "completion/complete",
    params: {
      ref: { type: "ref/resource", uri: template },
      argument: { name, value },
      context: { arguments: given },
    },
  });
  return completion.values;
}

beforeAll(async () => {
  await sh(
    sandbox,
    "mkdir -p src .hidden; echo hello >notes.txt; echo 'let x = 1' >src/a.ts; printf '\\x89PNG\\x00\\x01' >p.png; " +
      "echo odd >'ž %2F?#.md'; echo out >/tmp/outside; head -c 800000 /dev/zero >large; seq 300000 >lines.txt",
  );
});

describe("the server", () => {
  it("declares resources and completions, and no subscriptions", async () => {
    const { capabilities } = await owner.result<{ capabilities: object }>({
      method: "initialize",
      params: {
        protocolVersion: "2025-11-25",
        capabilities: {},
        clientInfo: { name: "test", version: "1" },
      },
    });
    expect(capabilities).toEqual({
      tools: { listChanged: false },
      resources: { listChanged: false },
      completions: {},
      extensions: { "io.modelcontextprotocol/ui": {}, "io.modelcontextprotocol/skills": {} },
    });
  });

  it("has templates for everything that the token may read", async () => {
    const templates = async (caller: Caller) =>
      (
        await caller.result<{ resourceTemplates: { uriTemplate: string }[] }>({
          method: "resources/templates/list",
        })
      ).resourceTemplates.map(({ uriTemplate }) => uriTemplate);
    expect((await templates(owner)).toSorted()).toEqual([RUNS, FILES, SKILLS].toSorted());
    const tasks = await principal("resources-tasks", ["tasks:run"]);
    expect(await templates(tasks)).toEqual([RUNS, SKILLS]);
    const writer = await principal("resources-writer", ["sandbox:write", "sandbox:exec"]);
    expect(await templates(writer)).toEqual([SKILLS]);
    const { resources } = await list(writer);
    expect(resources.filter(({ uri }) => !uri.startsWith("skill://"))).toEqual([]);
    // Without a template there is nothing to complete.
    const ref = { type: "ref/resource", uri: FILES };
    const params = { ref, argument: { name: "sandbox", value: "" } };
    const { messages } = await writer.post({ method: "completion/complete", params });
    expect(messages[0]?.error).toMatchObject({ code: -32602 });
  });
});

it("a skill says in its description that it is for set-up, deployment and troubleshooting", async () => {
  const { skills } = await owner.result<{ skills: { frontmatter: { description: string } }[] }>({
    method: "skills/list",
  });
  const words = ["set-up", "deploy", "troubleshoot"];
  const found = skills.filter(({ frontmatter }) =>
    words.every((word) => frontmatter.description.includes(word)),
  );
  expect(found).toHaveLength(1);
});

describe("a list of resources", () => {
  it("does not count as a use: the server stops a sandbox that is only listed", async () => {
    const idle = "resources-idle";
    await sh(idle, "touch seen");
    await stopWhenIdle(idle, "2s");
    const names = async () => (await listAll(owner)).map(({ name }) => name);
    expect(await names()).toContain(`${idle}/seen`);
    await until(async () => !(await names()).includes(`${idle}/seen`));
    expect(await names()).toContain(`${idle}/`);
    await untilStopped(idle);
  });
});

describe("the resource of a file", () => {
  it.each([
    ["notes.txt", { mimeType: "text/plain", text: "hello\n" }],
    ["src/a.ts", { mimeType: "text/plain", text: "let x = 1\n" }],
    ["p.png", { mimeType: "image/png", blob: "iVBORwAB" }],
    ["%C5%BE%20%252F%3F%23.md", { mimeType: "text/markdown", text: "odd\n" }],
    ["/tmp/outside", { mimeType: "text/plain", text: "out\n" }],
    ["src%2Fa.ts", { mimeType: "text/plain", text: "let x = 1\n" }],
    ["src/%2e%2e/notes.txt", { mimeType: "text/plain", text: "hello\n" }],
  ])("is read unchanged: %s", async (path, contents) => {
    const uri = `sandbox://${sandbox}/${path}`;
    expect(await read(uri)).toEqual({ uri, ...contents });
  });

  it("lists the addresses of its entries if it is a directory", async () => {
    for (const uri of [`sandbox://${sandbox}`, `sandbox://${sandbox}/`, `sandbox://${sandbox}//workspace`]) {
      const { mimeType, text = "" } = await read(uri);
      expect(mimeType).toBe("application/json");
      const { path, entries } = JSON.parse(text);
      expect(path).toBe("/workspace");
      expect(entries).toContainEqual(
        expect.objectContaining({ name: "src", type: "directory", uri: `sandbox://${sandbox}/src/` }),
      );
      const oddEntry = entries.find(({ name }: { name: string }) => name.endsWith(".md"));
      expect(await read(oddEntry.uri)).toMatchObject({ text: "odd\n" });
    }
    expect(JSON.parse((await read(`sandbox://${sandbox}//tmp/`)).text ?? "")).toMatchObject({
      path: "/tmp",
    });
  });

  it("lists fewer entries of a directory whose path is long, because each address repeats it", async () => {
    const name = "\u200b".repeat(80);
    const directories = Array.from({ length: 15 }, () => name);
    const script = `import os
os.chdir("/tmp")
for name in ["\\u200b" * 80] * 15: os.mkdir(name); os.chdir(name)
for number in range(300): open("\\u200b" * 70 + str(number), "w")`;
    await sh(sandbox, `python3 -c '${script}'`);
    const address = directories.map(encodeURIComponent).join("/");
    const { text = "" } = await read(`sandbox://${sandbox}//tmp/${address}`);
    const { entries, more } = JSON.parse(text);
    expect(more).toBe(true);
    expect(entries.length).toBeGreaterThan(30);
    expect(text.length).toBeLessThan(1_000_000);
    await sh(sandbox, `rm -r /tmp/${name}`);
  });

  it.each(["large", "lines.txt"])("is refused with advice if it is too large: %s", async (name) => {
    const { message } = await refusal(`sandbox://${sandbox}/${name}`);
    expect(message).toMatch(
      new RegExp(`/workspace/${name} has \\d+ bytes; .* file_link with path /workspace/${name}`),
    );
  });

  it.each([
    [`sandbox://${sandbox}/missing`, "There is no /workspace/missing"],
    [`sandbox://${sandbox}/workspace/notes.txt`, `/workspace/notes.txt is sandbox://${sandbox}/notes.txt`],
    [`sandbox://${sandbox}/../../etc/missing`, "There is no /workspace/etc/missing"],
    [`sandbox://${sandbox}/..%2F..%2F..%2Fetc/missing`, "There is no /etc/missing"],
    [`sandbox://${sandbox}/a%00b`, "must be percent-encoded UTF-8 without NUL"],
    [`sandbox://${sandbox}/a%ffb`, "must be percent-encoded UTF-8 without NUL"],
    [`sandbox://${sandbox}/a%`, "must be percent-encoded UTF-8 without NUL"],
    [`sandbox://${sandbox}/a?b`, "write ? as %3F"],
    [`sandbox://${sandbox}:80/a`, "without a query or fragment"],
    [`sandbox://user@${sandbox}/a`, "without a query or fragment"],
    ["sandbox://No%20Name/x", "must be 1 to 128 characters"],
    ["sandbox://No%20Name/x", 'such as "No-Name"'],
    ["sandbox://%72uns/x", "There is no run x"],
    ["sandbox:///x", "must be 1 to 128 characters"],
    ["sandbox:x", "must be 1 to 128 characters"],
    ["file:///etc/passwd", "The address of a resource is sandbox://"],
    ["", "The address of a resource is sandbox://"],
    [`sandbox://${sandbox}//dev/zero`, "is a device"],
    [`sandbox://runs/${sandbox}.00000000000000000000000000/log`, "There is no run"],
    ["sandbox://runs/x", "There is no run x"],
    ["sandbox://runs", "There is no run"],
  ])("has a readable error if its address is hostile or wrong: %s", async (uri, words) => {
    const { code, message } = await refusal(uri);
    expect([code, message]).toEqual([-32602, expect.stringContaining(words)]);
  });

  it("has an error that names the limit if its address is too long", async () => {
    const longest = `sandbox://${sandbox}/`.padEnd(MAX_RESOURCE_URI, "a");
    const notEncoded = `sandbox://${sandbox}/${"\u{1f600}".repeat(8000)}`;
    for (const uri of [longest, notEncoded])
      expect(await refusal(uri)).toMatchObject({ message: expect.stringContaining("than 4096 characters") });
    // The SDK throws at addresses of more than a million characters.
    for (const uri of [`${longest}a`, `x:${"a".repeat(1_000_000)}`]) {
      const message = expect.stringContaining("at most 16384 characters");
      expect(await refusal(uri)).toMatchObject({ code: -32602, message });
    }
    expect(await complete(FILES, "path", "missing/".padEnd(20_000, "a"), { sandbox })).toEqual([]);
  });

  it("starts its stopped sandbox if the token allows that, and leaves the notice for the next result", async () => {
    const name = "resources-stopped";
    await sh(name, "echo x >/workspace/x");
    await killContainer(name);
    const uri = `sandbox://${name}//etc/hostname`;
    expect((await read(uri)).text).not.toBe("");
    expect((await owner.call("list_files", { sandbox: name })).text).toContain("The sandbox was restarted");
    await owner.call("destroy_sandbox", { sandbox: name });
    const reader = await principal("resources-reader", ["sandbox:read"]);
    expect((await refusal("sandbox://default/x", reader)).message).toContain("is not running");
  });

  it("needs sandbox:read", async () => {
    const writer = await principal("resources-writer", ["sandbox:write", "sandbox:exec"]);
    const response = await writer.post({
      method: "resources/read",
      params: { uri: `sandbox://${sandbox}/notes.txt` },
    });
    expect([response.status, JSON.stringify(response.messages)]).toEqual([
      403,
      expect.stringContaining("sandbox:read"),
    ]);
  });
});

describe("the list of all resources", () => {
  it("has the workspaces, and the top-level entries of running sandboxes", async () => {
    const resources = await listAll(owner);
    const uris = resources.map(({ uri }) => uri);
    expect(uris).toEqual(
      expect.arrayContaining([
        `sandbox://${sandbox}/`,
        `sandbox://${sandbox}/src/`,
        `sandbox://${sandbox}/notes.txt`,
      ]),
    );
    expect(uris.filter((uri) => uri.includes("hidden"))).toEqual([]);
    const notes = resources.find(({ uri }) => uri.endsWith("/notes.txt"));
    expect(notes).toMatchObject({ name: `${sandbox}/notes.txt`, mimeType: "text/plain", size: 6 });
  });

  it("is divided into pages, and starts no container", async () => {
    const caller = await principal("resources-pages");
    const names = Array.from({ length: 12 }, (_, n) => `page-${String(n).padStart(2, "0")}`);
    await accountOf(caller).registerSandbox({ principalID: caller.principalID, sandbox: names[0] ?? "" });
    for (const name of names) {
      await accountOf(caller).registerSandbox({ principalID: caller.principalID, sandbox: name });
      await accountOf(caller).sandboxStopped(name);
    }
    const first = await list(caller);
    const second = await list(caller, first.nextCursor);
    expect(second.nextCursor).toBeUndefined();
    const uris = [...first.resources, ...second.resources].map(({ uri }) => uri);
    const sandboxes = uris.filter((uri) => uri.startsWith("sandbox://"));
    expect(sandboxes).toEqual(names.map((name) => `sandbox://${name}/`));
    const after = await accountOf(caller).sandboxes();
    expect(after.filter((one) => one.isRunning)).toEqual([]);
    const { messages } = await caller.post({ method: "resources/list", params: { cursor: "No Such" } });
    expect(messages[0]?.error).toMatchObject({ code: -32602 });
  });

  it("leaves out a sandbox named runs, whose files have no addresses", async () => {
    await sh("runs", "echo x >x");
    expect((await list(owner)).resources.filter(({ uri }) => uri === "sandbox://runs/")).toEqual([]);
    expect((await refusal("sandbox://runs/x")).message).toContain("There is no run x");
    expect(await complete(FILES, "sandbox", "runs")).toEqual([]);
    await owner.call("destroy_sandbox", { sandbox: "runs" });
  });
});

describe("the resource of a run", () => {
  it("is its log, also after its sandbox was destroyed", async () => {
    const name = "resources-runs";
    const { structured } = await owner.call("run_command", {
      sandbox: name,
      command: "echo out; echo err >&2",
    });
    const id = String(structured.id);
    await owner.call("destroy_sandbox", { sandbox: name });
    const uri = `sandbox://runs/${id}/log`;
    expect(await read(uri)).toEqual({ uri, mimeType: "text/plain", text: expect.stringMatching(/out\n/) });
    for (const all of [`sandbox://runs/${id}`, `sandbox://runs/${id}/`])
      expect(JSON.parse((await read(all)).text ?? "")).toMatchObject({
        id,
        state: "succeeded",
        resources: [{ name: "log", uri, size: 8 }],
      });
    expect((await refusal(`sandbox://runs/${id}/other`)).message).toContain(`sandbox://runs/${id}/ lists`);
    expect((await refusal(`sandbox://runs/${id}/artifacts/x`)).message).toContain("no artifact x");
    expect(await complete(RUNS, "id", `${name}.`)).toContain(id);
    expect(await complete(RUNS, "id", "resources-r")).not.toContain(id);
    expect(await complete(RUNS, "name", "", { id })).toEqual(["log"]);
  });

  it("is refused with advice if the log is too large", async () => {
    const { structured } = await owner.call("run_command", { sandbox, command: "seq 200000" });
    const { message } = await refusal(`sandbox://runs/${String(structured.id)}/log`);
    expect(message).toMatch(/has 1288895 bytes; .* get_result with id .* and cursor 0/);
  });

  it("lists fewer artifacts if their paths are long", async () => {
    const task = await owner.call("execute_task", { task: "[[write]] kept by the task" });
    const id = String(task.structured.id);
    const artifacts = Array.from({ length: 100 }, () => ({ path: "\u200b".repeat(2000), size: 1 }));
    const original = RunOutputs.prototype.read;
    const reading = vi.spyOn(RunOutputs.prototype, "read").mockImplementation(async function (
      this: RunOutputs,
      which,
    ) {
      const { run, ...rest } = await original.call(this, which);
      return { run: { ...run, detail: { ...(run.detail as TaskDetail), artifacts } }, ...rest };
    });
    onTestFinished(() => reading.mockRestore());
    const { text = "" } = await read(`sandbox://runs/${id}/`);
    const { resources, more } = JSON.parse(text);
    expect(more).toBe(true);
    expect(resources.length).toBeGreaterThan(10);
    expect(text.length).toBeLessThan(1_500_000);
  });

  it("includes a task's artifacts, which need tasks:run", async () => {
    const task = await owner.call("execute_task", { task: "[[write]] kept by the task" });
    const id = String(task.structured.id);
    const { artifacts } = task.structured as { artifacts: { path: string }[] };
    expect(artifacts.length).toBeGreaterThan(0);
    const { resources } = JSON.parse((await read(`sandbox://runs/${id}/`)).text ?? "");
    expect(resources.map(({ name }: Listed) => name)).toEqual([
      "log",
      ...artifacts.map(({ path }) => `artifacts/${path}`),
    ]);
    for (const { uri } of resources) expect((await read(uri)).uri).toBe(uri);
    expect((await listAll(owner)).map(({ uri }) => uri)).toContain(`sandbox://runs/${id}/`);
    expect(await complete(RUNS, "name", "art", { id })).toContain("artifacts/changes.diff");
    const narrow = await principal("resources-narrow", ["sandbox:read"]);
    const response = await narrow.post({
      method: "resources/read",
      params: { uri: `sandbox://runs/${id}/log` },
    });
    expect([response.status, JSON.stringify(response.messages)]).toEqual([
      403,
      expect.stringContaining("tasks:run"),
    ]);
  });
});

describe("the completion", () => {
  it("suggests sandboxes and paths", async () => {
    expect(await complete(FILES, "sandbox", "resou")).toContain(sandbox);
    expect(await complete(FILES, "path", "", { sandbox })).toEqual(
      expect.arrayContaining(["notes.txt", "src/", ".hidden/"]),
    );
    expect(await complete(FILES, "path", "src/", { sandbox })).toEqual(["src/a.ts"]);
    expect(await complete(FILES, "path", "/tmp/out", { sandbox })).toEqual(["/tmp/outside"]);
    expect(await complete(FILES, "path", "missing/", { sandbox })).toEqual([]);
    expect(await complete(FILES, "path", "../../etc/hostn", { sandbox })).toEqual(["../../etc/hostname"]);
    expect(await complete(FILES, "path", "x", { sandbox: "No Name" })).toEqual([]);
  });

  it("has fewer paths if they are long, because each repeats the beginning", async () => {
    await sh(sandbox, "mkdir /tmp/many; touch /tmp/many/{1..200}");
    const start = `/tmp/many/${"./".repeat(8000)}`;
    const paths = await complete(FILES, "path", start, { sandbox });
    expect(paths.length).toBeGreaterThan(30);
    expect(paths.join("").length).toBeLessThan(1_000_000);
    await sh(sandbox, "rm -r /tmp/many");
  });

  it("uses the connection's sandbox if none is given, and does not start it", async () => {
    expect(await complete(FILES, "path", "no", {}, owner.withQuery(`?sandbox=${sandbox}`))).toEqual([
      "notes.txt",
    ]);
    const name = "resources-unstarted";
    await accountOf(owner).registerSandbox({ principalID: owner.principalID, sandbox: name });
    await accountOf(owner).sandboxStopped(name);
    expect(await complete(FILES, "path", "/et", { sandbox: name })).toEqual([]);
    expect(await isRunning(name)).toBe(false);
    await owner.call("destroy_sandbox", { sandbox: name });
  });
});

describe("an answer that its client has not read", () => {
  let caller: Caller;

  beforeAll(async () => {
    caller = await principal("resources-unread");
    for (let number = 0; number < 8; number += 1) {
      const name = `${"a".repeat(60)}${number}`;
      await accountOf(caller).registerSandbox({ principalID: caller.principalID, sandbox: name });
    }
  });

  it.each([
    ["resources/list", {}],
    ["resources/read", { uri: PANEL_URI }],
  ])("counts, and the server withholds it when there are too many: %s", async (method, params) => {
    const answer = async () => (await caller.post({ method, params })).messages[0];
    const others = RequestMemory.forCall(caller.principalID, new AbortController().signal);
    // Room for the request, which counts as CALL_BYTES, but not for the result too.
    others.add(MAX_HELD_BYTES - 2 * CALL_BYTES - 600);
    try {
      expect((await answer())?.error?.message).toContain("withheld");
    } finally {
      others.release();
    }
    expect((await answer())?.result).toBeDefined();
  });
});
