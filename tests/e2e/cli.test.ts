/** The command line against a server on this machine: runs, files and the machine itself. */
import { createHash, randomInt } from "node:crypto";
import { mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { type CLIOptions, commandsWith, runCLI, runHere, startCLI } from "../setup/cli.ts";
import { endLater } from "../setup/end-later.ts";
import { firstOfSandbox, processes } from "../setup/processes.ts";
import { repository, startServer, TOKEN } from "../setup/server.ts";
import { sleep, until, untilText } from "../setup/until.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import { serve } from "../setup/serve.ts";

const stateDir = temporaryDirectory();
const directory = temporaryDirectory();
const local: CLIOptions = {
  env: { SANDBOX_MCP_STATE_DIR: stateDir, SERVER_AUTH_TOKEN: TOKEN },
  cwd: directory,
};
const { run, json } = commandsWith(local);

const server = endLater(await startServer({ flags: ["--state-dir", stateDir] }));

describe("the server that a command calls", () => {
  it("is the local one by default, with the token from the environment", async () => {
    expect(await runCLI(["command", "echo here"], local)).toEqual({ code: 0, stdout: "here\n", stderr: "" });
  });

  it("is the one that --url names, also if --url has only its origin", async () => {
    const args = ["sandboxes", "--url", new URL(server.url).origin, "--token", TOKEN];
    expect(await runHere(args)).toMatchObject({ code: 0, stdout: expect.stringContaining("default") });
  });

  it("does not receive the local server's token if --url names another server", async () => {
    const { code, stderr } = await run(["runs", "--url", "https://sandbox.example"]);
    expect([code, stderr]).toEqual([77, expect.stringContaining("set SANDBOX_MCP_TOKEN")]);
  });

  it.each([
    [["--token", "a-token-of-nobody"], {}, 77, "does not accept the token of --token"],
    [
      ["--url", "http://127.0.0.1:1"],
      { SANDBOX_MCP_TOKEN: "any" },
      69,
      "No server responds at http://127.0.0.1:1/mcp",
    ],
    [["--url", "here"], { SANDBOX_MCP_TOKEN: "any" }, 64, "--url must be the address of a server"],
    [[], { SANDBOX_MCP_STATE_DIR: "/nowhere" }, 69, "No local server is running. Start one with `npm start`"],
  ])(
    "cannot be called, and the error says why: options %j, environment %j",
    async (words, env, code, message) => {
      const options = { env: { ...local.env, ...env } };
      const text = await runHere(["runs", ...words], options);
      expect(text).toEqual({ code, stdout: "", stderr: expect.stringContaining(message) });
      const data = await runHere(["runs", "--json", ...words], options);
      expect(JSON.parse(data.stdout)).toEqual({
        success: false,
        error: { kind: expect.any(String), message: expect.stringContaining(message), exit_status: code },
      });
    },
  );
});

it("an error names an option that npm took because -- was missing", async () => {
  const env = { ...local.env, npm_lifecycle_event: "cli", npm_config_limit: "5", npm_config_save: "false" };
  const { code, stderr } = await runHere(["runs"], { env });
  expect([code, stderr]).toEqual([
    64,
    expect.stringContaining("npm used --limit for itself. Put -- before all options"),
  ]);
});

describe("command", () => {
  it("passes on output and exit status", async () => {
    const ended = await run(["command", "echo out; echo err >&2; exit 3"]);
    expect(ended).toEqual({ code: 3, stdout: "out\n", stderr: "err\n" });
  });

  it("does not end with a status that this program uses for another purpose", async () => {
    expect(await run(["command", "exit 75"])).toEqual({
      code: 1,
      stdout: "",
      stderr: expect.stringContaining("exit code was 75. This command uses that status for another purpose"),
    });
    expect(await json(["command", "exit 75"])).toMatchObject({ success: false, exit_code: 75 });
    expect(await run(["command", "exit 127"])).toEqual({ code: 127, stdout: "", stderr: "" });
  });

  it("reports once what the sandbox has lost, also if the command outlasts the first call", async () => {
    const loseSandbox = async () => {
      const marker = `sleep 86400.${randomInt(1e9)}`;
      const running = startCLI(["command", "--sandbox", "lost", marker], local);
      const sleeper = await until(() => processes().find(({ command }) => command === marker));
      process.kill(firstOfSandbox(sleeper).pid, "SIGKILL");
      return running.ended;
    };
    const restarted = /The sandbox was restarted/g;
    expect(await loseSandbox()).toMatchObject({ code: 70 });
    const { code, stdout, stderr } = await run(["command", "--sandbox", "lost", "sleep 2; echo on"]);
    expect([code, stdout, stderr.match(restarted)]).toEqual([0, "on\n", ["The sandbox was restarted"]]);
    await loseSandbox();
    const answer = await json(["command", "--sandbox", "lost", "sleep 2"]);
    expect(String(answer.notice).match(restarted)).toHaveLength(1);
  });

  it("prints data with --json", async () => {
    const answer = await json(["command", "echo $A; exit 2", "--env", "A=1"]);
    expect(answer).toMatchObject({ success: false, state: "failed", exit_code: 2, stdout: "1\n" });
  });

  it("reads its text from standard input", async () => {
    expect(await run(["command"], "cd /tmp && pwd")).toMatchObject({ code: 0, stdout: "/tmp\n" });
    expect(await run(["command", "pwd"])).toMatchObject({ stdout: "/tmp\n" });
  });

  it("exits with 124 at its timeout", async () => {
    expect(await run(["command", "--timeout", "1", "sleep 60"])).toMatchObject({ code: 124 });
  });

  it("prints output as it arrives, and stops the run on Ctrl-C", async () => {
    const running = startCLI(["command", "--session", "long", "echo started; sleep 300"], local);
    running.stdin.end();
    await until(() => running.stdout().includes("started"));
    running.kill("SIGINT");
    expect(await running.ended).toMatchObject({ code: 130, stdout: "started\n" });
    const { runs } = (await json(["runs", "--kind", "command", "--limit", "1"])) as { runs: object[] };
    expect(runs).toEqual([expect.objectContaining({ state: "cancelled", title: "echo started; sleep 300" })]);
  });

  it("continues after a broken connection, and prints nothing twice", async () => {
    let broken = 0;
    const proxy = await serve(async (request, response) => {
      const body = Buffer.concat(await request.toArray());
      if (body.includes('"get_result"') && broken++ < 2) return request.socket.destroy();
      const headers = request.headers as Record<string, string>;
      const init = { method: request.method, headers, body: body.length > 0 ? body : undefined };
      const reply = await fetch(new URL(request.url ?? "", server.url), init as RequestInit);
      response.writeHead(reply.status, { "content-type": reply.headers.get("content-type") ?? "" });
      response.end(Buffer.from(await reply.arrayBuffer()));
    });
    const ended = await runCLI(["command", "echo one; sleep 2; echo two", "--url", proxy, "--token", TOKEN]);
    expect(ended).toMatchObject({
      code: 0,
      stdout: "one\ntwo\n",
      stderr: expect.stringContaining("retrying"),
    });
    expect(broken).toBeGreaterThan(2);
  });

  it("prints all of a long output, and ends if the reader closes the pipe", async () => {
    const { stdout } = await run(["command", "seq 50000"], "");
    expect(stdout.split("\n")).toHaveLength(50_001);
    const early = startCLI(["command", "seq 500000"], local);
    early.closeStdout();
    expect(await early.ended).toMatchObject({ stderr: "" });
  });
});

/** Runs a line of shell in a terminal. `type` types a text, and returns the output once it contains `shown`. */
function inTerminal(line: string) {
  const running = startCLI(["-qec", line, "/dev/null"], { ...local, program: "script" });
  const type = (text: string, shown: string | RegExp) => {
    running.stdin.write(text);
    return untilText(running.stdout, shown);
  };
  return { running, type };
}

describe("shell", () => {
  it("has the size of the user's terminal, passes Ctrl-C on, ends with Ctrl-], and restores the terminal", async () => {
    const program = `"${process.execPath}" "${join(repository, "cli/main.ts")}" shell`;
    const line = `stty rows 40 cols 100; ${program}; echo "status $?"; ${program} cat; echo "status $?"; stty -a`;
    const { running, type } = inTerminal(line);
    await type("", "/workspace# ");
    // Both commands must be in one process group. Otherwise a key that is typed between them is lost.
    await type("sh -c 'stty size; exec sleep 300'\r", "40 100");
    await type("\u0003", "^C");
    await type("printf '\\033]52;c;AAAA\\007%s\\n' $((6 * 7)); exit 3\rlost\r", "status 3");
    await type("typed\r", "typed\r\ntyped");
    await type("\u001d", "status 75");
    const { stdout } = await running.ended;
    expect(stdout).toContain("42\r\n");
    // The command line removes sequences that write into the user's clipboard.
    expect(stdout).not.toContain("\u001b]52");
    expect(stdout).toMatch(/shell --attach default\.\w/);
    const settings = stdout.slice(stdout.indexOf("status 75"));
    for (const setting of ["icanon", "echo", "isig", "opost"])
      expect(settings).toMatch(new RegExp(`[^-]${setting} `));
  });

  it("continues if it is unknown whether a text was typed, and ends if a text cannot be typed", async () => {
    const program = `"${process.execPath}" "${join(repository, "cli/main.ts")}" shell --sandbox lost`;
    const line = `${program}; echo "status $?"; ${program} "echo deaf; sleep 1; pkill -STOP -x script; sleep 300"; echo "status $?"`;
    const { running, type } = inTerminal(line);
    await type("", "/workspace# ");
    // The stopped sandboxd gets the next text, and ends before it has confirmed the text.
    await type("(pkill -STOP -x sbxd; sleep 3; pkill -KILL -x sbxd; echo $((6 * 7))) &\r", "[1]");
    await type(": lost\r", "42");
    await type("echo $((7 * 8))\r", "56");
    await type("exit 3\r", "status 3");
    await untilText(running.stdout, "deaf");
    await sleep(2000);
    // The terminal is stopped, so it accepts only what its buffers hold.
    await type("x".repeat(100_000), "status 70");
    expect((await running.ended).stdout).toMatch(/Only \d+ of \d+ bytes were typed/);
  });

  it("resizes an existing terminal to the user's terminal", async () => {
    const program = `"${process.execPath}" "${join(repository, "cli/main.ts")}" shell`;
    const inside = `trap 'stty size' WINCH; stty size; while sleep 0.1; do :; done`;
    const line = `stty rows 40 cols 100; ${program} "${inside}"; echo "left: $?"; read -r id; stty rows 50 cols 90; ${program} --attach "$id"`;
    const { running, type } = inTerminal(line);
    await type("", /40 100/);
    // `read` works only after the command line has restored the terminal's modes.
    const leaving = /--attach (default\.\w+)[^]*left: 75/;
    const [, id = ""] = leaving.exec(await type("\u001d", leaving)) ?? [];
    await type(`${id}\r`, /50 90/);
    running.stdin.write("\u001d");
    expect(await running.ended).toMatchObject({ code: 75 });
    expect(await json(["cancel", id])).toMatchObject({ state: "cancelled" });
  });
});

describe("sandboxes", () => {
  it("prints the data of list_sandboxes with --json", async () => {
    const { sandboxes, ...rest } = await json(["sandboxes"]);
    expect(rest).toMatchObject({ success: true, max_sandboxes: expect.any(Number) });
    expect(sandboxes).toContainEqual(
      expect.objectContaining({
        name: "default",
        state: "running",
        last_used_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
      }),
    );
  });
});

describe("watch", () => {
  it("prints lines for each run, its output and its end", async () => {
    const watching = startCLI(["watch", "--json", "--sandbox", "watched", "--interval", "1"], local);
    watching.stdin.end();
    const readEvents = () =>
      watching
        .stdout()
        .split("\n")
        .filter(Boolean)
        .map((text) => JSON.parse(text));
    const command = startCLI(["command", "--sandbox", "watched", "while echo tick; do sleep 1; done"], local);
    command.stdin.end();
    await until(() => readEvents().some(({ event, text }) => event === "output" && text.includes("tick")));
    const found = readEvents().find(({ event }) => event === "run");
    expect(found).toMatchObject({ sandbox: "watched", kind: "command", state: "running" });
    await json(["cancel", found.id]);
    await until(() => readEvents().some(({ id, state }) => id === found.id && state === "cancelled"));
    watching.kill("SIGINT");
    expect(await watching.ended).toMatchObject({ code: 0, stderr: "" });
    await command.ended;
    expect(readEvents()[0]).toMatchObject({ event: "sandbox", sandbox: "watched", state: "running" });
  });
});

describe("code", () => {
  it("prints the value of the last expression, and fails with the traceback", async () => {
    expect(await run(["code", "x = 20; x * 2 + 2"])).toEqual({ code: 0, stdout: "42\n", stderr: "" });
    const failed = await run(["code", "x / 0"]);
    expect(failed).toMatchObject({
      code: 1,
      stdout: "",
      stderr: expect.stringContaining("ZeroDivisionError"),
    });
    expect(await json(["code", "x / 0"])).toMatchObject({
      success: false,
      state: "failed",
      error: { name: "ZeroDivisionError" },
    });
  });

  it("passes an exit code on, unless it has another meaning for this program", async () => {
    expect(await run(["code", "raise SystemExit(3)"])).toMatchObject({ code: 3 });
    const { code, stderr } = await run(["code", "raise SystemExit(75)"]);
    expect([code, stderr]).toEqual([1, expect.stringContaining("exit code was 75")]);
    expect(await json(["code", "raise SystemExit(75)"])).toMatchObject({ success: false, exit_code: 75 });
  });

  it("reports that the kernel died", async () => {
    const args = ["code", "--context", "dying", "import os; os._exit(3)"];
    expect(await run(args)).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^The python kernel dying died: /),
    });
  });

  it("derives the language from a file's name, and saves images", async () => {
    writeFileSync(join(directory, "a.ts"), "const n: number = 6; n * 7");
    expect(await run(["code", "--file", "a.ts"])).toMatchObject({ code: 0, stdout: "42\n" });
    const image = "from PIL import Image; Image.new('RGB', (2, 2))";
    const { images } = (await json(["code", "--save", "charts", image])) as { images: string[] };
    expect(images).toEqual([join(directory, "charts/image-1.png")]);
    expect(
      readFileSync(images[0] ?? "")
        .subarray(1, 4)
        .toString(),
    ).toBe("PNG");
    const second = await json(["code", "--save", "charts", image]);
    expect(second.images).toEqual([join(directory, "charts/image-2.png")]);
  });

  it("prints the result even if an image cannot be saved", async () => {
    mkdirSync(join(directory, "full"));
    symlinkSync("nowhere", join(directory, "full/image-1.png"));
    const args = ["code", "--save", "full", "from PIL import Image; print('done'); Image.new('RGB', (2, 2))"];
    expect(await run(args)).toMatchObject({
      code: 69,
      stdout: expect.stringMatching(/^done\n/),
      stderr: expect.stringContaining("image-1.png cannot be written: EEXIST"),
    });
    expect(await json(args)).toMatchObject({ success: false, state: "succeeded", images: [] });
  });
});

it.each([
  [["code", "1", "--file", "a.ts"], 64, "not both"],
  [["code", "--file", "none.py"], 69, "none.py cannot be read"],
  [["code", "1", "--language", "cobol"], 64, "python, javascript, typescript"],
  [["code", "1", "--context", "A b"], 64, "must be 1 to 64 characters (a-z, 0-9, -, _, .)"],
  [["command", "ls", "--session", "A b"], 64, "must be 1 to 64 characters (a-z, 0-9, -, _, .)"],
  [["command", "ls", "--timeout", "21601"], 64, "a whole number from 1 to 21600."],
  [["execute", "x", "--agent", "foo"], 64, "Allowed choices are claude-code, opencode."],
  [["runs", "--limit", "900"], 64, "rejected the arguments: limit must be a whole number"],
  [["code", "1", "--save", "/proc/nope/charts"], 69, "/proc/nope/charts cannot be written: ENOENT"],
  [["code", "1", "--save", "/dev/null"], 69, "/dev/null cannot be written: EEXIST"],
])("the command line %j is refused", async (words, code, message) => {
  expect(await run(words)).toMatchObject({ code, stdout: "", stderr: expect.stringContaining(message) });
});

it("`runs` prints a sentence if there are no runs", async () => {
  expect(await run(["runs", "--sandbox", "nosuch"])).toMatchObject({
    code: 0,
    stdout: "",
    stderr: expect.stringContaining("No runs in sandbox nosuch. To list the sandboxes:"),
  });
  expect(await json(["runs", "--sandbox", "nosuch"])).toMatchObject({ runs: [] });
});

describe("files", () => {
  it("keep their bytes with put and get, whatever their names", async () => {
    const content = Buffer.from([0, 255, 10, 200]).toString("latin1");
    writeFileSync(join(directory, "b in.bin"), content, "latin1");
    expect(await run(["files", "put", "b in.bin", "dä/#?.bin"])).toMatchObject({
      code: 0,
      stdout: "/workspace/dä/#?.bin: 4 B\n",
    });
    expect(await json(["files", "ls", "dä"])).toMatchObject({
      entries: [{ path: "#?.bin", type: "file", size: 4 }],
    });
    const got = await json(["files", "get", "dä/#?.bin", "out.bin"]);
    expect(got).toMatchObject({ success: true, path: join(directory, "out.bin"), size: 4 });
    expect(readFileSync(join(directory, "out.bin"), "latin1")).toBe(content);
    expect(await run(["files", "get", "dä/#?.bin", "out.bin"])).toMatchObject({ code: 64 });
  });

  it("go through pipes, and get packs a directory", async () => {
    await runCLI(["files", "put", "-", "/tmp/p/q.txt"], local, "through\n");
    expect(await run(["files", "get", "/tmp/p/q.txt", "-"], "")).toEqual({
      code: 0,
      stdout: "through\n",
      stderr: "",
    });
    expect(await run(["files", "get", "/tmp/p"])).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^\S+p\.tar\.gz: \d+ B\n$/),
    });
    expect(await run(["files", "get", "/tmp/p/."])).toMatchObject({
      code: 64,
      stderr: expect.stringContaining("/p.tar.gz exists already"),
    });
    expect(await run(["files", "get", "."])).toMatchObject({
      stdout: expect.stringContaining("/workspace.tar.gz: "),
    });
  });

  it("resolve .. like a shell in /workspace, and never outside the sandbox", async () => {
    writeFileSync(join(directory, "p.txt"), "mine\n");
    expect(await run(["files", "put", "p.txt", "../../other/files/p.txt"])).toMatchObject({
      code: 0,
      stdout: "/other/files/p.txt: 5 B\n",
    });
    expect(await run(["command", "cat /other/files/p.txt"])).toMatchObject({ stdout: "mine\n" });
    expect(await run(["files", "get", "../other/./files/../files/p.txt", "-"])).toMatchObject({
      stdout: "mine\n",
    });
    expect(await json(["files", "ls", "../other"])).toMatchObject({ entries: [{ path: "files" }] });
    expect(await run(["files", "get", "../../../health", "-"])).toMatchObject({
      code: 70,
      stderr: expect.stringContaining("There is no /health"),
    });
    expect(await run(["files", "get", "health", "-", "--sandbox", ".."])).toMatchObject({
      code: 64,
      stdout: "",
    });
  });

  it("are all listed by ls if the server lists a directory in parts", async () => {
    await run([
      "command",
      "mkdir /workspace/many && cd /workspace/many && seq -f %05g 1 10002 | xargs touch",
    ]);
    const { entries, more } = (await json(["files", "ls", "many"])) as { entries: object[]; more: boolean };
    expect([entries.length, more]).toEqual([10_002, false]);
    expect(entries.at(-1)).toMatchObject({ path: "10002" });
  });

  it.each([
    [["files", "get", "none"], 70, "There is no /workspace/none"],
    [["files", "put", "none"], 69, "There is no "],
    [["files", "put", "."], 64, "is not a file"],
    [["files", "ls", "none"], 70, "There is no /workspace/none"],
  ])("the error of %j says what is wrong", async (words, code, message) => {
    expect(await run(words)).toMatchObject({ code, stdout: "", stderr: expect.stringContaining(message) });
  });
});

describe("token", () => {
  it("makes a token with its entry for AUTH_TOKENS, and hashes a given token", async () => {
    const created = await json(["token", "new", "--name", "ci", "--scopes", "sandbox:read, tasks:run"]);
    const hashed = await run(["token", "hash"], `${String(created.token)}\n`);
    expect(created).toMatchObject({
      success: true,
      variable: "AUTH_TOKENS",
      entry: { name: "ci", sha256: hashed.stdout.trim(), scopes: ["sandbox:read", "tasks:run"] },
    });
    expect(hashed.stdout.trim()).toBe(createHash("sha256").update(String(created.token)).digest("hex"));
    expect(await json(["token", "show"])).toMatchObject({ token: TOKEN, source: "environment" });
  });
});

describe("doctor and diagnose", () => {
  it("report what this machine has, and exit with 1 if something is missing", async () => {
    const port = new URL(server.url).port;
    const well = await json(["doctor", "--port", port]);
    expect(well).toMatchObject({
      success: true,
      checks: expect.arrayContaining([expect.objectContaining({ name: "Node" })]),
    });
    const checked = await run(["doctor", "--port", port, "--state-dir", "another"]);
    expect(checked).toMatchObject({
      code: 1,
      stdout: expect.stringContaining(`failed\tport ${port}\tin use`),
    });
    expect(checked.stderr).toContain("npm start -- --port 0");
  });

  it("report in one sentence that a bundle cannot be written", async () => {
    const ended = await run(["diagnose", "--output", "/dev/null/x.json"]);
    expect(ended).toMatchObject({
      code: 69,
      stdout: "",
      stderr: expect.stringMatching(/^Error: \/dev\/null\/x\.json cannot be written: ENOTDIR[^\n]*\n$/),
    });
  });

  it("write a bundle that only its user can read, without a secret, and not into a repository", async () => {
    const { path } = await json(["diagnose"]);
    expect(dirname(String(path))).toBe(join(stateDir, "reports"));
    expect(statSync(String(path)).mode & 0o777).toBe(0o600);
    const text = readFileSync(String(path), "utf8");
    // Without --port, the check finds the running server.
    const found = expect.stringMatching(/^in use by this server, process \d+$/);
    const name = `port ${new URL(server.url).port}`;
    expect(JSON.parse(text)).toMatchObject({
      checks: expect.arrayContaining([expect.objectContaining({ name, found })]),
      variables: { SERVER_AUTH_TOKEN: "(set)" },
      server: { url: server.url, health: { status: "healthy" } },
    });
    expect(text).not.toContain(TOKEN);
  });
});
