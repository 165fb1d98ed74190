/** Commands with input: in a terminal, typed with send_input, or from the parameter stdin. */
import { describe, expect, it } from "vitest";
import { idIn, type Result } from "../../setup/mcp-client.ts";
import { callsIn, evict, owner, result, sh, until, untilText } from "../support.ts";

const sandbox = "interactive";

const { command: run } = callsIn(sandbox);

const open = (command: string, more: Record<string, unknown> = {}) =>
  run(command, { interactive: true, ...more });

const type = (started: Result, text: string) => owner.call("send_input", { id: idIn(started), text });

/** Returns a function that gets the whole output so far. */
const shownBy = (started: Result) => async () =>
  (await result(idIn(started), { cursor: 0, wait_seconds: 0 })).text;

/** Types, and waits for these words. On a busy machine a program may pause, which ends the wait of `send_input`. */
async function typeFor(started: Result, text: string, words: string | RegExp): Promise<string> {
  const { text: settled, isError } = await type(started, text);
  expect(isError, settled).toBe(false);
  if (settled.search(words) >= 0) return settled;
  return untilText(shownBy(started), words);
}

const waitForResult = (started: Result) => owner.call("get_result", { id: idIn(started) });

describe("stdin", () => {
  it("reaches the command unchanged, with any content", async () => {
    expect(await sh(sandbox, "od -An -tx1", { stdin: "'$\0é\n" })).toBe(" 27 24 00 c3 a9 0a\n");
    expect(await sh(sandbox, "wc -c", { stdin: "x".repeat(1_000_000) })).toBe("1000000\n");
    expect(await sh(sandbox, "cat")).toBe("");
  });

  it("combined with a terminal is an error that suggests send_input", async () => {
    const refused = await open("cat", { stdin: "x" });
    expect(refused.isError).toBe(true);
    expect(refused.text).toContain("send_input");
  });
});

describe.concurrent("a command in a terminal", () => {
  it("sends its output unchanged and at once to a client that shows a terminal", async () => {
    const client = owner.withQuery("?results=raw");
    const started = await open("printf '\\033[1mbold\\033[0m\\n'; read a; echo got $a", { session: "raw" });
    const id = idIn(started);
    // If a program prints nothing, the server waits ten seconds.
    const typed = await client.call("send_input", { id, text: "x" });
    expect(typed.structured).toMatchObject({ state: "running", log: [] });
    await client.call("send_input", { id, text: "y\r" });
    await waitForResult(started);
    const { structured } = await client.call("get_result", { id, cursor: 0 });
    const [{ text: shown } = { text: "" }] = structured.log as { text: string }[];
    expect(shown).toContain("\u001b[1mbold\u001b[0m\r\n");
    expect(shown).toMatch(/got xy\r\n$/);
  });

  it("returns its question, and continues with the typed text", async () => {
    const started = await open('read -p "Name? " name; echo "Hello, $name."; exit 3', { session: "read" });
    expect(started.structured).toMatchObject({ state: "running", stdout: "Name? " });
    expect(started.text).toContain("send_input");
    await typeFor(started, "Zoë\n", /Zoë\nHello, Zoë\.\n/);
    expect((await waitForResult(started)).structured).toMatchObject({ state: "failed", exit_code: 3 });
  });

  it("has a terminal of a usual size and type, and changes the state of its session", async () => {
    const session = "kept";
    await run("export KEPT=before; cd /tmp", { session });
    const started = await open('tty; stty size; echo "$TERM $KEPT $PWD"; KEPT=after; cd /', { session });
    expect(started.text).toMatch(/\/dev\/pts\/\d+\n30 120\nxterm-256color before \/tmp/);
    expect(await sh(sandbox, 'echo "${TERM-} $KEPT $PWD"', { session })).toBe(
      `${await sh(sandbox, "echo -n ${TERM-}", { session: "other" })} after /\n`,
    );
  });

  it("has the size that its start or a later send_input requests", async () => {
    const started = await open('env | grep -E "^(LINES|OTHER)="; while stty size; do read -r; done', {
      session: "size",
      env: { LINES: "20", COLUMNS: "90", OTHER: "kept" },
    });
    expect(await untilText(shownBy(started), /OTHER=kept\n20 90\n/)).not.toContain("LINES=");
    await owner.call("send_input", { id: idIn(started), columns: 300, rows: 70, text: "\n" });
    await untilText(shownBy(started), /\n70 300\n/);
    const alone = await owner.call("send_input", { id: idIn(started), columns: 40, rows: 7 });
    expect(alone.isError).toBe(false);
    await typeFor(started, "\n", /\n7 40\n/);
    for (const wrongArgs of [{}, { rows: 7 }, { columns: 7, text: "x" }, { columns: 0, rows: 7 }])
      expect((await owner.call("send_input", { id: idIn(started), ...wrongArgs })).isError).toBe(true);
    await owner.call("cancel_run", { id: idIn(started) });
  });

  it("does not show a typed password", async () => {
    const started = await open('read -rs -p "Password: " secret; echo; echo "${#secret} characters"', {
      session: "password",
    });
    const typed = await typeFor(started, "pass word\n", "9 characters");
    expect(typed).not.toContain("pass word");
    expect((await owner.call("get_result", { id: idIn(started), cursor: 0 })).text).not.toContain(
      "pass word",
    );
  });

  it("can be a shell, in which Ctrl-C ends a program and not the shell, and Ctrl-D ends the shell", async () => {
    const started = await open("bash --norc", { session: "shell" });
    await typeFor(started, "echo good $((1 + 1)) go; sleep 4320\n", "good 2 go");
    await until(async () => (await sh(sandbox, "pgrep -fx 'sleep 4320' || true")) !== "");
    await typeFor(started, "\u0003", "^C");
    await until(async () => (await sh(sandbox, "pgrep -fx 'sleep 4320' || echo none")) === "none\n");
    // The program works silently before it prints.
    expect((await type(started, "sleep 1.5; echo still $((40 + 2)); (exit 4)\n")).text).toContain("still 42");
    await type(started, "\u0004");
    expect((await waitForResult(started)).text).toContain("exit_code: 4");
  });

  it("can be a full-screen program that receives single keys", async () => {
    const program = `
import os, sys, termios, tty
before = termios.tcgetattr(0)
tty.setraw(0)
print("\\x1b[?1049h\\x1b[2J\\x1b[1;1HFirst line\\x1b[30;1Hq quits", end="", flush=True)
while (key := os.read(0, 8)) != b"q":
    print("\\x1b[2;1H\\x1b[Kkey " + repr(key), end="", flush=True)
termios.tcsetattr(0, termios.TCSADRAIN, before)
print("\\x1b[?1049l", end="")`;
    await owner.call("write_file", { sandbox, path: "/tmp/screen.py", content: program });
    const started = await open("python3 /tmp/screen.py", { session: "screen" });
    // On a busy machine a program may start so slowly that the call returns first.
    const screen = async () =>
      (await owner.call("get_result", { id: idIn(started), wait_seconds: 0 })).structured.stdout;
    await until(async () => (await screen()) === "First line\nq quits");
    await typeFor(started, "\u001b[A", /key b'(\\x1b|\\u001b)\[A'/);
    await typeFor(started, "\n", "key b'\\r'");
    await type(started, "q");
    expect((await waitForResult(started)).structured.state).toBe("succeeded");
  });

  it("warns that the end of a line may be lost if the line is too long for a terminal", async () => {
    const waiting = { session: "long", wait_seconds: 0 };
    const started = await open("read line; echo got ${#line}", waiting);
    const typed = await type(started, `${"x".repeat(5000)}\n`);
    expect(typed.text).toMatch(/^notice:\nThe typed line is longer than 4095 bytes: [^]*got 4095\n/);
    const short = await open("read line; echo got ${#line}", waiting);
    expect((await type(short, `${"x".repeat(4095)}\n`)).text).not.toContain("notice");
  });
});

describe("input to a run", () => {
  it("is refused with the reason if nothing reads it", async () => {
    const plain = await run("sleep 30", { session: "plain", wait_seconds: 0 });
    expect((await type(plain, "x")).text).toMatch(/does not run in a terminal[^]*interactive/);
    await owner.call("cancel_run", { id: idIn(plain) });
    const over = await open("true", { session: "over" });
    expect(over.structured).toMatchObject({ state: "succeeded" });
    const refused = await owner.call("send_input", { id: over.structured.id, text: "x" });
    expect(refused.isError).toBe(true);
    expect(refused.text).toContain("has ended");
    expect((await owner.call("send_input", { id: "none", text: "x" })).text).toContain("There is no run");
  });

  it("is refused while the command waits for its turn", async () => {
    const before = await open("cat", { session: "queue", wait_seconds: 0 });
    const behind = await open("cat", { session: "queue", wait_seconds: 0 });
    expect((await type(behind, "x")).text).toContain("waits for its turn");
    await owner.call("cancel_run", { id: idIn(behind) });
    await owner.call("cancel_run", { id: idIn(before) });
  });

  it("is refused with the number of typed bytes if the program does not read, and the run can still be cancelled", async () => {
    const started = await open("stty raw -echo; echo deaf; sleep 600", { session: "deaf" });
    // While this process is stopped, the terminal accepts no more input, as if its program did not read.
    await sh(sandbox, "pkill -STOP -x script");
    const typed = await Promise.all(Array.from({ length: 8 }, () => type(started, "x".repeat(10_000))));
    expect(typed.find(({ isError }) => isError)?.text).toMatch(/Only \d+ of 10000 bytes were typed/);
    expect(await sh(sandbox, "echo others go on")).toBe("others go on\n");
    expect((await owner.call("cancel_run", { id: idIn(started) })).text).toContain("state: cancelled");
  });
});

describe("a terminal outlives", () => {
  it("sandboxd, and accepts input after sandboxd was killed", async () => {
    const started = await open('read -p "one? " a; read -p "two? " b; echo "$a and $b"', {
      session: "adopted",
    });
    await run("pkill -9 -x sbxd", { session: "killer" });
    await typeFor(started, "first\n", "two? ");
    await run("pkill -9 -x sbxd", { session: "killer" });
    await typeFor(started, "second\n", "first and second");
    expect((await waitForResult(started)).structured.state).toBe("succeeded");
  });

  it("the actor, and accepts input after the actor was evicted", async () => {
    const started = await open('read -p "one? " a; echo "got $a"', { session: "evicted" });
    await evict(sandbox);
    await type(started, "first\n");
    expect((await waitForResult(started)).structured).toMatchObject({
      state: "succeeded",
      stdout: expect.stringContaining("got first"),
    });
  });

  it("the actor, and send_input shows what the command printed before the actor was evicted", async () => {
    const command = 'read -p "one? " a; echo working; sleep 2; echo later; read -p "two? " b; echo "got $b"';
    const started = await open(command, { session: "evicted-output" });
    await type(started, "first\n");
    await untilText(shownBy(started), "two? ");
    await evict(sandbox);
    expect((await type(started, "second\n")).text).toContain("later");
  });
});

describe("a terminal ends", () => {
  it("when it is cancelled, and all its processes end too", async () => {
    const terminals = async () => (await sh(sandbox, "pgrep -x script; true")).split("\n");
    // Terminals of earlier tests may still be ending.
    const others = await terminals();
    const started = await open("bash --norc", { session: "cancelled" });
    await typeFor(started, "sleep 4321 & echo good $((1 + 1)) go; nohup setsid sleep 4322\n", "good 2 go");
    expect((await owner.call("cancel_run", { id: idIn(started) })).structured.state).toBe("cancelled");
    expect(await sh(sandbox, "pgrep -fx 'sleep 432.' || echo none")).toBe("none\n");
    // On a busy machine it may still be ending when the call returns.
    await until(async () => (await terminals()).every((id) => others.includes(id)));
  });

  it("with its command and its background processes, except processes that left the terminal", async () => {
    const command =
      "sleep 4323 & setsid sleep 4324 & until pgrep -fx 'sleep 4324' >/dev/null; do sleep 0.1; done; echo end";
    const started = await open(command, { session: "background" });
    // A slow terminal may still be ending when the call returns its output.
    const over = started.structured.state === "running" ? await waitForResult(started) : started;
    expect(over.structured).toMatchObject({ state: "succeeded", stdout: "end\n" });
    await expect.poll(() => sh(sandbox, "pgrep -fax 'sleep 432[34]' | cut -d' ' -f2-")).toBe("sleep 4324\n");
    await sh(sandbox, "pkill -fx 'sleep 4324'");
  });
});
