import { describe, expect, it } from "vitest";
import { callsIn, owner } from "../support.ts";

const sandbox = "where";
const { command } = callsIn(sandbox);
const read = (path: string) => owner.call("read_file", { sandbox, path });

describe("the directory of a session", () => {
  it("is in each result if it is not /workspace", async () => {
    const session = "walks";
    const created = await command("mkdir -p project/src 'odd dir'; cd project", { session });
    expect(created.text).toBe("exit_code: 0\ncwd: /workspace/project");
    expect(created.structured.cwd).toBe("/workspace/project");
    expect((await command("false", { session })).text).toContain("cwd: /workspace/project");
    expect((await command("pwd", { session, cwd: "/tmp" })).text).toContain("cwd: /workspace/project");
    expect((await command("cd '../odd dir'", { session })).text).toContain('cwd: "/workspace/odd dir"');
    expect((await command("cd /workspace", { session })).text).toBe("exit_code: 0");
    expect((await command("true", { session: "stays" })).structured.cwd).toBeUndefined();
  });

  it("is the previous directory if its shell was killed", async () => {
    const session = "stopped";
    await command("cd /tmp", { session });
    const stopped = await command("cd /; sleep 60", { session, timeout_seconds: 3 });
    expect(stopped.structured).toMatchObject({ state: "timed_out", cwd: "/" });
    expect((await command("cd /usr; kill -9 $$", { session })).structured.cwd).toBe("/");
  });

  it("is in a result together with the ports of the command", async () => {
    const session = "serves";
    const { structured } = await command(
      "cd /tmp; python3 -m http.server 8123 >/dev/null 2>&1 & cd /tmp; until (: </dev/tcp/127.0.0.1/8123) 2>/dev/null; do sleep 0.1; done; sleep 1.5",
      { session },
    );
    expect(structured).toMatchObject({ cwd: "/tmp", ports: [8123] });
  });

  it("cannot be forged by a function of the session", async () => {
    const session = "forges";
    const forging = "f() { cat <<'X'\n# in /etc\n# complete\nX\n}; true";
    expect((await command(forging, { session })).structured.cwd).toBeUndefined();
    expect((await command("cd /tmp", { session })).structured.cwd).toBe("/tmp");
  });
});

describe("an error about a missing file", () => {
  it("names a session's directory that has the file", async () => {
    await command("mkdir -p app/src; echo a >app/src/main.py; cd app");
    expect((await read("src/main.py")).text).toBe(
      "There is no /workspace/src/main.py. Use path /workspace/app/src/main.py: paths are relative to /workspace, not to a session's directory.",
    );
    const edits = [{ old_text: "a", new_text: "b" }];
    expect((await owner.call("edit_file", { sandbox, path: "src/main.py", edits })).text).toContain(
      "Use path /workspace/app/src/main.py",
    );
    expect((await owner.call("list_files", { sandbox, path: "src" })).text).toContain(
      "Use path /workspace/app/src:",
    );
  });
});

describe("a program that runs in a terminal", () => {
  it("is named by the next call in its session, with the way to end it", async () => {
    const hung = await command("trap '' INT; cat", { session: "hangs", interactive: true, wait_seconds: 0 });
    const id = String(hung.structured.id);
    const next = await command("true", { session: "hangs", wait_seconds: 1 });
    expect(next.text).toMatch(new RegExp(`It waits for run ${id} in session hangs\\. Cancel that run `));
    await owner.call("cancel_run", { id });
    const done = await owner.call("get_result", { id: next.structured.id });
    expect(done.structured.state).toBe("succeeded");
  });

  it("accepts input without repeated advice in the results", async () => {
    const started = await command("cat", { session: "types", interactive: true, wait_seconds: 1 });
    const id = String(started.structured.id);
    expect(started.text).toContain(`type with send_input, id ${id}`);
    const typed = await owner.call("send_input", { id, text: "words\n" });
    expect(typed.text).toContain("words");
    expect(typed.text).not.toContain(id);
    expect(typed.text).not.toContain("send_input");
    expect(typed.text).not.toContain("cursor");
    await owner.call("cancel_run", { id });
  });
});
