/** A sandbox in which root removed files that the server's calls need. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LANGUAGES } from "../../../src/shared/languages.ts";
import { owner, sh } from "../support.ts";

const sandbox = "damaged";

/** Moves /opt/sandbox-mcp away, which the image has too. /opt/sandbox-runtime exists only on the local platform, so it stays. */
const DAMAGE =
  "mv /opt /gone && mkdir /opt && ln -s /gone/sandbox-runtime /opt/sandbox-runtime && ls /opt/sandbox-mcp";

beforeAll(async () => {
  await sh(sandbox, "echo kept >kept", { session: "before" });
  await owner.call("read_file", { sandbox, path: "kept" });
  await owner.call("run_command", { sandbox, command: DAMAGE });
});
type Case = [what: string, tool: string, args: object];

describe("a damaged sandbox", () => {
  it.each<Case>([
    ["a command in a running shell", "run_command", { command: "true", session: "before" }],
    ["a command in a new shell", "run_command", { command: "true", session: "after" }],
    ...LANGUAGES.map((language) => [`new code in ${language}`, "run_code", { code: "1", language }] as Case),
    ["a task", "execute_task", { task: "nothing", wait_seconds: 20 }],
  ])("is named as damaged in the result of %s, with the next step", async (_what, tool, args) => {
    const { text } = await owner.call(tool, { sandbox, ...args });
    expect(text).toContain("is damaged");
    expect(text).toContain("destroy_sandbox");
    expect(text).not.toMatch(/Internal error|command not found|exit_code: 127/);
  });

  it("still has its files, and a new sandbox works", async () => {
    for (const [tool, args] of [
      ["read_file", { path: "kept" }],
      ["write_file", { path: "new", content: "new" }],
      ["list_files", {}],
    ] as const)
      expect((await owner.call(tool, { sandbox, ...args })).text).toMatch(/kept|Wrote/);
    await owner.call("destroy_sandbox", { sandbox });
    expect(await sh(sandbox, "echo works")).toBe("works\n");
  });
});

describe("a sandbox with empty helper programs", () => {
  const emptied = "emptied";
  afterAll(() => owner.call("destroy_sandbox", { sandbox: emptied }));

  it("is reported as damaged by calls that run something, and its files can be read", async () => {
    await sh(emptied, "echo kept >kept", { session: "before" });
    // The test empties copies, because the sandbox's own files are mounts of this machine's files.
    const empty =
      "mkdir /emptied && cp -rL /opt/sandbox-mcp /emptied/ && find /emptied -type f -exec truncate -s 0 {} +";
    const inPlace = "mv /opt /gone && mv /emptied /opt && ln -s /gone/sandbox-runtime /opt/sandbox-runtime";
    const done = await owner.call("run_command", {
      sandbox: emptied,
      session: "emptying",
      command: `(${empty} && ${inPlace}); ls -la /opt/sandbox-mcp`,
    });
    expect(done.text).toMatch(/ 0 .*task\.sh/);
    for (const [tool, args] of [
      ["run_command", { command: "echo printed", session: "before" }],
      ["run_command", { command: "echo printed", session: "after" }],
      ...LANGUAGES.map((language) => ["run_code", { code: "1", language }] as const),
    ] as const) {
      const { text } = await owner.call(tool, { sandbox: emptied, ...args });
      expect(text, `${tool} ${JSON.stringify(args)}`).toMatch(/is damaged[^]*destroy_sandbox/);
    }
    const read = await owner.call("read_file", { sandbox: emptied, path: "kept" });
    expect(read.structured.content).toBe("kept\n");
  });
});
