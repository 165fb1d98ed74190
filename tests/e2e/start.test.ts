/**
 * `npm start`: its options, its output, its errors and its end. No process of a server survives it, however the server ends:
 * killed.test.ts and clients.test.ts of tests/faults show this for SIGTERM and for a server whose engine or workerd was killed, and
 * tests/e2e/tasks.test.ts for a server with isolation that was killed itself.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { randomInt, randomUUID } from "node:crypto";
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { freePort } from "../../cli/lock.ts";
import { readRunning } from "../../cli/running.ts";
import { type Process, pidOf, processes, tree, waitForEnd } from "../setup/processes.ts";
import {
  repository,
  type Server,
  type ServerOptions,
  startCommand,
  startServer,
  TOKEN,
  withoutPython,
} from "../setup/server.ts";
import { MCPClient } from "../setup/mcp-client.ts";
import { runHere } from "../setup/cli.ts";
import { callTool } from "../setup/tool.ts";
import { until } from "../setup/until.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import { listen } from "../setup/listen.ts";

/** A copy of the repository, like a new clone. */
function clone(): string {
  const directory = temporaryDirectory();
  const list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
  const files = execFileSync("git", list, { cwd: repository, encoding: "utf8" }).split("\0").filter(Boolean);
  for (const file of files.filter((name) =>
    statSync(join(repository, name), { throwIfNoEntry: false })?.isFile(),
  )) {
    mkdirSync(dirname(join(directory, file)), { recursive: true });
    cpSync(join(repository, file), join(directory, file));
  }
  return directory;
}

/** Runs the program of `npm start` to its end. */
async function run(
  options: ServerOptions,
): Promise<{ code: number | string; stdout: string; stderr: string }> {
  const command = startCommand(options);
  const code = await command.exited;
  return { code, stdout: withoutNPM(command.stdout()), stderr: withoutNPM(command.stderr()) };
}

/** The server's output without npm's lines. */
function withoutNPM(text: string): string {
  return text.replaceAll(/^(npm (warn|error|notice)|>).*\n?/gm, "").trim();
}

/** How long the processes may take to end, on a busy machine, in milliseconds. */
const GONE_WITHIN = 15_000;

/**
 * Starts processes in a sandbox, in the foreground, in the background and detached. Returns all processes of the server and its
 * sandboxes.
 */
async function startSleepers(server: Pick<Server, "url" | "child">, token = TOKEN): Promise<Process[]> {
  const marker = `86400.${randomInt(1e9)}`;
  const call = (session: string, command: string) =>
    callTool(server.url, "run_command", { sandbox: "sleepers", session, command }, token);
  await call(
    "first",
    `sleep ${marker} & nohup sleep ${marker} >/dev/null 2>&1 & setsid sleep ${marker} >/dev/null 2>&1 &`,
  );
  void call("other", `sleep ${marker}`).catch(() => undefined);
  const findSleepers = () => processes().filter(({ command }) => command === `sleep ${marker}`);
  await until(() => findSleepers().length === 4);

  const descendants = tree(server.child.pid ?? 0);
  const detached = findSleepers().filter(({ pid }) => !descendants.some((other) => other.pid === pid));
  return [...descendants, ...detached];
}

async function status(url: string, token: string): Promise<number> {
  return (await new MCPClient(url, token).post({ method: "tools/list" })).status;
}

describe.concurrent("the command line", () => {
  it("prints its help", async () => {
    const { code, stdout } = await run({ flags: ["--help"] });
    expect(code).toBe(0);
    for (const flag of ["--port", "--isolation", "--network", "--state-dir", "--python", "--verbose"]) {
      expect(stdout).toContain(flag);
    }
  });

  it.each([
    [["--port", "80000"], {}, 64, /--port must be a port number/],
    [["--port", "0", "--python", "/bin/true"], {}, 1, /^--python \/bin\/true does not run as Python 3\./],
    [
      ["--port", "0"],
      { ALLOWED_ORIGINS: "https://a.example/path" },
      1,
      /^ALLOWED_ORIGINS\S* must be an origin/,
    ],
  ])("refuses the options %j with the environment %j", async (flags, env, exit, message) => {
    const directory = temporaryDirectory();
    const { code, stderr } = await run({ flags: [...flags, "--state-dir", directory], env });
    expect(code).toBe(exit);
    expect(stderr).toMatch(message);
    expect(processes().filter(({ command }) => command.includes(directory))).toEqual([]);
  });
});

/** Requests an address from a sandbox. The output ends with the status. */
const curl = "curl -sS -m 20 -o /dev/stdout -w '%{http_code}' http://example.invalid/";

describe("a server with flags, on a machine without python3", () => {
  let server: Server;
  beforeAll(async () => {
    server = await startServer({
      flags: ["--verbose", "--network", "none"],
      within: withoutPython(),
      env: { SANDBOX_MCP_PYTHON: undefined },
    });
    return () => server.stop();
  });

  it("reports that python3 is missing, and serves the other languages", async () => {
    expect(server.stderr()).toMatch(/python3 is not installed/);
    const code = { code: "6 * 7", language: "javascript" };
    expect(await callTool(server.url, "run_code", code)).toContain("42");
    const verified = await runHere(["verify", `${server.url}?tools=run_code`, TOKEN]);
    expect([verified.code, verified.stdout]).toEqual([
      0,
      expect.stringMatching(/^warning\trun_code in Python\t.*python[^]*\nWarning: run_code in Python; /m),
    ]);
  });

  it("gives sandboxes no internet with --network none, and a refused request gets this reason", async () => {
    expect(await callTool(server.url, "run_command", { command: curl })).toMatch(
      /operator of this server does not allow [^]*no internet access[^]*403/,
    );
  });

  it("prints the configuration and links for every client with --verbose", () => {
    const [, link = ""] = /vscode:mcp\/install\?(\S+)/.exec(server.stdout()) ?? [];
    expect(JSON.parse(decodeURIComponent(link))).toEqual({ name: "sandbox", type: "http", url: server.url });
    for (const client of ["Claude Code", "Claude Desktop", "Cursor", "VS Code", "MCP Inspector"]) {
      expect(server.stdout()).toContain(`${client}`);
    }
    const configurations = server
      .stdout()
      .split("\n")
      .filter((text) => text.startsWith("  {"));
    expect(configurations.length).toBeGreaterThan(0);
    for (const line of configurations) {
      expect(line).toContain(server.url);
      expect(() => JSON.parse(line)).not.toThrow();
    }
  });

  it("prints the logs with --verbose", async () => {
    await callTool(server.url, "run_command", { command: "true" });
    await expect.poll(() => server.stderr()).toMatch(/"event":"call".*"tool":"run_command"/);
    expect(server.stderr()).not.toContain(TOKEN);
  });
});

describe("a new clone", () => {
  let directory: string;
  let first: Server;
  let second: Server;
  let port: number;
  let token: string;
  const value = `value-${randomUUID()}`;
  const secret = {
    name: "api",
    hosts: ["api.example.invalid"],
    header: "X-Key: {value}",
    value,
    variable: "KEY",
  };
  const flags = ["--state-dir", temporaryDirectory()];
  const startClone = (options: ServerOptions = {}) => {
    const env = { PORT: "1", SERVER_AUTH_TOKEN: undefined, SECRETS: JSON.stringify([secret]) };
    return startServer({
      directory,
      env,
      flags: [...flags, "--port", String(port)],
      asUser: true,
      ...options,
    });
  };
  const runCommand = (command: string) => callTool(first.url, "run_command", { command }, token);

  beforeAll(async () => {
    directory = clone();
    port = await freePort(0);
    return async () => {
      await first?.stop();
      await second?.stop();
    };
  });

  it("says to run npm ci if the packages are not installed", () => {
    const { status: code, stderr } = spawnSync("npm", ["start"], { cwd: directory, encoding: "utf8" });
    expect(code).toBe(1);
    expect(withoutNPM(stderr)).toBe("The packages of this clone are not installed. Run: npm ci");
  });

  it("generates the server's token, and keeps it in .dev.vars with the other lines", async () => {
    symlinkSync(join(repository, "node_modules"), join(directory, "node_modules"));
    const file = join(directory, ".dev.vars");
    writeFileSync(file, "# mine\nLOG_LEVEL=warn\n");
    first = await startClone();
    const saved = readFileSync(file, "utf8");
    token = /^SERVER_AUTH_TOKEN=(\S{40,})$/m.exec(saved)?.[1] ?? "";
    expect(saved).toMatch(/^# mine\nLOG_LEVEL=warn\nSERVER_AUTH_TOKEN=/);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(await status(first.url, token)).toBe(200);
    expect(await status(first.url, `${token}x`)).toBe(401);
    expect(first.stdout()).toContain(file);
    // Wrangler's own line about secrets is not shown.
    expect(first.stdout()).not.toContain("Using secrets");
    expect(first.stdout()).not.toContain(token);
  });

  it("prefers --port to the variable PORT", () => {
    expect(first.url).toBe(`http://127.0.0.1:${port}/mcp`);
  });

  it("prints its address and how to connect, in 15 lines", async () => {
    await runCommand("true");
    expect(withoutNPM(first.stderr())).toBe("");
    const printed = first.stdout();
    expect(`${first.stderr()}${printed}`.split("\n").slice(0, -1).length).toBeLessThanOrEqual(15);
    for (const part of [first.url, "/panel", "claude mcp add ", "npm run cli -- connect", " run -s token)"])
      expect(printed).toContain(part);
  });

  it("never lets its sandboxes reach this machine", async () => {
    const requestToServer = curl.replace("http://example.invalid/", new URL("/health", first.url).href);
    const direct = await runCommand(`${requestToServer} --noproxy '*'`);
    expect(direct).not.toContain("healthy");
    const proxied = await runCommand(`${requestToServer} --noproxy ''`);
    expect(proxied).toMatch(/sandbox may not reach[^]*403/);
  });

  it("keeps its token and all other secrets out of command lines and of all environments except its own", async () => {
    const answer = await runCommand("echo $KEY; curl -sS https://api.example.invalid/");
    // curl trusts the proxy's certificate, so it prints the server's explanation why the request failed.
    expect(answer).toContain("sandbox-mcp-secret-api\nsandbox-mcp: ");
    const holdersOf = (secretText: string) =>
      processes()
        .filter(({ pid }) => environmentOf(pid).includes(secretText))
        .map(({ command }) => command);
    for (const one of [token, value]) {
      expect(processes().filter(({ command }) => command.includes(one))).toEqual([]);
      expect(holdersOf(one).filter((command) => /workerd|engine|bwrap|runtime/.test(command))).toEqual([]);
    }
    expect(holdersOf(value).some((command) => command.includes("cli/npm-script.mjs start"))).toBe(true);
  });

  it("starts no second server with the same state directory", async () => {
    const refused = await run({ flags: [...flags, "--port", "0"] });
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain(`Another server is using the state directory ${flags.at(-1)}.`);
  });

  it("starts again with the same token and sandboxes after npm was killed, which left no process", async () => {
    const file = join(directory, ".dev.vars");
    const saved = readFileSync(file, "utf8");
    const runKept = (to: Server) =>
      callTool(to.url, "run_command", { command: "true", sandbox: "kept" }, token);
    await runKept(first);
    const all = await startSleepers(first, token);
    process.kill(pidOf("npm", all), "SIGKILL");
    await first.exited;
    expect(await waitForEnd(all, GONE_WITHIN)).toEqual([]);
    second = await startClone({ ownGroup: true });
    expect(readFileSync(file, "utf8")).toBe(saved);
    expect(await callTool(second.url, "list_sandboxes", {}, token)).toContain("kept: stopped, used");
    await runKept(second);
    expect(await callTool(second.url, "list_sandboxes", {}, token)).toContain("kept: running");
  });

  it("ends at Ctrl-C without an unexpected error or a process, although the terminal sends SIGINT to every process of the foreground group", async () => {
    const all = await startSleepers(second, token);
    process.kill(-(second.child.pid ?? Number.NaN), "SIGINT");
    await second.exited;
    expect(await waitForEnd(all, GONE_WITHIN)).toEqual([]);
    expect(second.stderr()).not.toMatch(/unexpected/i);
  });
});

// Each test has its own server.
describe.concurrent("a server without isolation", () => {
  it("prints its address with --json as one line and no token, keeps a given token in its own environment, and leaves no process if it is killed", async (test) => {
    const directory = temporaryDirectory();
    const flags = ["--json", "--isolation", "none", "--port", "0", "--state-dir", directory];
    const command = startCommand({ flags });
    test.onTestFinished(() => void command.child.kill("SIGTERM"));
    await until(() => command.stdout().includes('{"success"'));
    const [line = ""] = /^\{.*\}\n$/m.exec(command.stdout()) ?? [];
    const { url, ...ready } = JSON.parse(line);
    expect(await status(url, TOKEN)).toBe(200);
    expect(ready).toEqual({
      success: true,
      panel: new URL("/panel", url).href,
      pid: readRunning(directory)?.pid,
      token_source: "environment",
      mounts: [],
    });
    expect(withoutNPM(command.stdout())).toBe(line.trim());
    const all = await startSleepers({ ...command, url });
    const holders = all.filter(({ pid }) => environmentOf(pid).includes(TOKEN)).map((one) => one.command);
    expect(holders).not.toEqual([]);
    expect(holders.filter((one) => !one.includes("cli/npm-script.mjs start"))).toEqual([]);
    process.kill(ready.pid, "SIGKILL");
    expect(await waitForEnd(all, GONE_WITHIN)).toEqual([]);
  });

  it("ends its prepared shells at Ctrl-C, also without control groups", async (test) => {
    // bwrap makes the server's user a normal user. After its first command, each session has a prepared shell.
    const mounts = "--tmpfs /sys/fs/cgroup --tmpfs /workspace --tmpfs /var/lib --tmpfs /opt";
    const within = `bwrap --unshare-user --uid 1000 --gid 1000 --dev-bind / / ${mounts}`.split(" ");
    const server = await startServer({ flags: ["--isolation", "none"], ownGroup: true, within });
    test.onTestFinished(() => server.stop());
    for (const command of ["cd /tmp", "pwd"]) await callTool(server.url, "run_command", { command });
    const ready = () => tree(server.child.pid ?? 0).filter(({ command }) => command.startsWith("sbx-keep"));
    await until(() => ready().length > 1);
    const all = tree(server.child.pid ?? 0);
    process.kill(-(server.child.pid ?? Number.NaN), "SIGINT");
    await server.exited;
    const remaining = await waitForEnd(all, GONE_WITHIN);
    for (const { pid } of remaining) process.kill(pid, "SIGKILL");
    expect(remaining).toEqual([]);
  });
});

describe.concurrent("npm start", () => {
  it.each(["/proc/nope", "/dev/null/below"])(
    "reports an unusable state directory %s in one line",
    async (directory) => {
      const { code, stderr } = await run({ flags: ["--port", "0", "--state-dir", directory] });
      expect(code).toBe(1);
      expect(stderr).toMatch(
        /^The state directory \S+ cannot be made or written \(.*\)\. Give it to this user \(chown -R\), or choose another: --state-dir <path>\.$/,
      );
    },
  );

  it.runIf(process.getuid?.() === 0)("reports a full disk in one line", async () => {
    const directory = temporaryDirectory();
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=2m,mode=700", "full", directory]);
    const { code, stderr } = await run({ flags: ["--port", "0", "--state-dir", directory] }).finally(() =>
      execFileSync("umount", [directory]),
    );
    expect([code, stderr]).toEqual([
      1,
      `The disk of the state directory ${directory} is full. Free space on it, or choose another: --state-dir <path>.`,
    ]);
  });

  it("refuses a state directory of an older version, says how to begin anew, and uses the directory after that", async () => {
    const directory = temporaryDirectory();
    const data = join(directory, "data");
    mkdirSync(join(data, "do"), { recursive: true });
    // A server that accepts the directory stops, because the port is in use.
    const listener = createServer();
    const port = String(await listen(listener));
    const start = () => run({ flags: ["--port", port, "--state-dir", directory] });
    expect(await start()).toMatchObject({
      code: 1,
      stderr: `The state directory ${directory} has data of another version of this server, which this version does not read. To begin anew without its sandboxes, results and sign-ins, delete ${data}, or choose another state directory: --state-dir <path>.`,
    });
    rmSync(data, { recursive: true });
    expect((await start()).stderr).toContain("is in use");
    mkdirSync(data);
    expect((await start()).stderr).toContain("is in use");
    listener.close();
  });

  it("does not create a state directory in a missing directory", async () => {
    const directory = join(temporaryDirectory(), "mistyped/state");
    const { code, stderr } = await run({ flags: ["--port", "0", "--state-dir", directory] });
    expect([code, stderr]).toEqual([
      1,
      expect.stringMatching(
        /^\S+mistyped does not exist, so the state directory [^\n]+--state-dir <path>\.$/,
      ),
    ]);
    expect(existsSync(dirname(directory))).toBe(false);
  });

  it.runIf(process.getuid?.() === 0).each([
    ["belongs to another user (54321)", 0o700, 54_321],
    ["is open to other users", 0o1777, 0],
  ])("warns if the state directory %s", async (problem, mode, owner) => {
    const directory = temporaryDirectory();
    chownSync(directory, owner, owner);
    chmodSync(directory, mode);
    // The server stops, because the port is in use.
    const listener = createServer();
    const port = String(await listen(listener));
    const { stderr } = await run({ flags: ["--port", port, "--state-dir", directory] });
    listener.close();
    expect(stderr).toContain(`WARNING: the state directory ${directory} ${problem}`);
    expect(statSync(directory).mode & 0o7777).toBe(mode);
  });

  it("closes an existing state directory to other users, and reports an unexpected error in one line, also as JSON", async () => {
    const directory = temporaryDirectory();
    chmodSync(directory, 0o755);
    // The server needs a directory at this path, so it stops.
    writeFileSync(join(directory, "python"), "");
    const flags = ["--port", "0", "--state-dir", directory];
    const env = { SANDBOX_MCP_PYTHON: undefined };
    const { code, stderr } = await run({ flags, env });
    const [closed, message, ...more] = stderr.split("\n");
    expect(closed).toContain(`Other users could open the state directory ${directory}`);
    expect(statSync(directory).mode & 0o777).toBe(0o700);
    expect([code, message, more]).toEqual([69, expect.stringMatching(/^EEXIST: .+python'$/), []]);
    const { stdout } = await run({ flags: [...flags, "--json"], env });
    expect(JSON.parse(stdout.slice(stdout.indexOf("{")))).toEqual({
      success: false,
      error: { kind: "unavailable", message, exit_status: 69 },
    });
  });

  it("reports a used port in one line", async () => {
    const listener = createServer();
    const port = await listen(listener);
    const directory = temporaryDirectory();
    const { code, stderr } = await run({ flags: ["--port", String(port), "--state-dir", directory] });
    expect(code).toBe(1);
    listener.close();
    expect(stderr).toBe(
      `Port ${port} is in use. Stop the program that listens there, or choose another port: --port <number>.`,
    );
    expect(processes().filter(({ command }) => command.includes(directory))).toEqual([]);
  });

  it("prints the command to type if isolation is off and rights are missing", async () => {
    const within = ["bwrap", "--die-with-parent", "--dev-bind", "/", "/", "--tmpfs", "/opt"];
    const flags = ["--port", "0", "--isolation", "none", "--state-dir", temporaryDirectory()];
    const { code, stderr } = await run({ flags, within: [...within, "--remount-ro", "/opt"] });
    expect([code, stderr]).toEqual([
      1,
      expect.stringMatching(
        /^Without isolation[^\n]+: sudo install -d -m 700 [^\n]+ && sudo ln -sfnT '[^\n]+\/container' \S+$/,
      ),
    ]);
  });
});

function environmentOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/environ`, "utf8");
  } catch {
    return "";
  }
}
