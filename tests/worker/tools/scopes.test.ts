import { beforeAll, describe, expect, it } from "vitest";
import { type Caller, principal, until } from "../support.ts";
import { words } from "../../setup/words.ts";

describe("a client with sandbox:write alone", () => {
  let callerWithAllScopes: Caller;
  let writer: Caller;

  beforeAll(async () => {
    callerWithAllScopes = await principal("writer");
    writer = await principal("writer", ["sandbox:write"]);
    const command = `mkdir -p /workspace/inside ~/elsewhere && cd /workspace && ln -s / root && ln -s /etc/passwd file &&
      ln -s inside within && ln -s ~/elsewhere/new new && echo kept > ~/elsewhere/kept && ln -s ~/elsewhere /tmp/out`;
    const { structured, text } = await callerWithAllScopes.call("run_command", { command });
    if (structured.state !== "succeeded") throw new Error(text);
  });

  it("edits a file without seeing its content", async () => {
    await callerWithAllScopes.call("write_file", { path: "secret", content: "secret\nother\n" });
    const done = await writer.call("edit_file", {
      path: "secret",
      edits: [{ old_text: "other", new_text: "more" }],
    });
    expect(done.isError, done.text).toBe(false);
    const missing = await writer.call("edit_file", {
      path: "secret",
      edits: [{ old_text: "secrex", new_text: "" }],
    });
    expect(missing.isError).toBe(true);
    for (const { text } of [done, missing]) expect(text).not.toMatch(/secret\n|"secret"|Nearest/);
    expect((await callerWithAllScopes.call("read_file", { path: "secret" })).text).toContain("more");
  });

  it("learns that a set-up has failed, but not what it printed", async () => {
    const sandbox = "set-up";
    await callerWithAllScopes.call("write_file", { sandbox, path: "secret", content: "in the file\n" });
    await callerWithAllScopes.call("configure_sandbox", { sandbox, setup: "cat secret; exit 3" });
    const { isError, text } = await writer.call("write_file", { sandbox, path: "a", content: "x" });
    expect([isError, text]).toEqual([false, expect.stringContaining("set-up of this sandbox failed")]);
    expect(text).not.toContain("in the file");
    const read = await callerWithAllScopes.call("read_file", { sandbox, path: "a" });
    expect(read.text).toContain('ends: "in the file"');
  });

  it("cannot write outside /workspace and /tmp, also not through links", async () => {
    const look = async () =>
      (
        await callerWithAllScopes.call("run_command", {
          command: "cat ~/elsewhere/* /etc/passwd; ls -a /etc ~/elsewhere / ~ /workspace",
        })
      ).structured.stdout;
    const before = await look();
    for (const path of words(`
      /etc/ld.so.preload /root/.bashrc /workspace /tmp/ /workspace/../etc/hosts root/etc/ld.so.preload
      root/workspace/../etc/ld.so.preload file new /tmp/out/kept /tmp/out/made/below /proc/self/cwd/../etc/x
      /workspacex /var/lib/sandbox-mcp/x
    `))
      for (const more of [{}, { append: true }, { content: "x".repeat(60_000) }]) {
        const { isError, text } = await writer.call("write_file", { path, content: "x", ...more });
        expect([path, isError, text]).toEqual([
          path,
          true,
          expect.stringMatching(/sandbox:exec|is a directory/),
        ]);
      }
    expect(await look()).toBe(before);
  });

  it.each(["a", "/tmp/a", "made/for/it", "within/a", "root/workspace/b", "a name\nof lines\n"])(
    "writes below /workspace and /tmp, also through links: %s",
    async (path) => {
      for (const content of ["text", "\0".repeat(10), "x".repeat(60_000)]) {
        const { isError, text } = await writer.call("write_file", { path, content });
        expect(isError, text).toBe(false);
        expect((await callerWithAllScopes.call("read_file", { path, encoding: "base64" })).isError).toBe(
          false,
        );
      }
      const { text } = await writer.call("write_file", { path, content: "y", append: true });
      expect(text).toContain("60001 in all");
    },
  );
});

describe("a client without tasks:run", () => {
  it("is refused in a sandbox in which a task runs", async () => {
    const callerWithAllScopes = await principal("tasks", [
      "sandbox:read",
      "sandbox:write",
      "sandbox:exec",
      "tasks:run",
    ]);
    const executor = await principal("tasks", ["sandbox:exec"]);
    const sandbox = "shared";
    const run = () => executor.call("run_command", { sandbox, command: "echo ran" });
    expect((await run()).text).toContain("ran");
    const terminal = await executor.call("run_command", { sandbox, command: "cat", interactive: true });
    const type = (caller: Caller) =>
      caller.call("send_input", { id: terminal.structured.id, text: "typed\n" });
    expect((await type(executor)).text).toContain("typed");
    const { structured } = await callerWithAllScopes.call("execute_task", {
      task: "[[wait]] x",
      sandbox,
      wait_seconds: 0,
    });
    const refused = [
      await run(),
      await executor.call("run_code", { sandbox, code: "1" }),
      await type(executor),
    ];
    for (const { isError, text } of refused) {
      expect(isError).toBe(true);
      expect(text).toMatch(/coding agent is running in sandbox shared.*tasks:run/);
    }
    expect((await executor.call("run_command", { sandbox: "other", command: "echo ran" })).isError).toBe(
      false,
    );
    // The terminal occupies the default session.
    const other = { sandbox, session: "other", command: "echo ran" };
    expect((await callerWithAllScopes.call("run_command", other)).text).toContain("stdout: ran");
    expect((await type(callerWithAllScopes)).isError).toBe(false);
    await callerWithAllScopes.call("cancel_run", { id: structured.id });
    await until(async () => !(await type(executor)).isError);
  });
});
