/** Access to the engine, and how its sandboxes start and end, without leaving anything behind. */
import { spawn, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdirSync, openSync, readdirSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { chmod, type FileHandle, mkdtemp, open, symlink, writeFile } from "node:fs/promises";
import { type IncomingMessage, request } from "node:http";
import { availableParallelism, networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";
import { text } from "node:stream/consumers";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { CACHE_DIRECTORY } from "../../cli/bundle.ts";
import { SANDBOXD_PORT, TOKEN_HEADER } from "../../container/sandboxd/protocol.ts";
import { syncFile } from "../../local/engine/durable.ts";
import { checkBubblewrap } from "../../local/engine/check.ts";
import { findGroupParents, groupPrefix } from "../../local/engine/limits.ts";
import { repository } from "../../local/engine/own-files.ts";
import { SECRET_HEADER } from "../../local/platform/engine-protocol.ts";
import { endLater } from "../setup/end-later.ts";
import { startTestEngine, TestSandbox, type EngineAddress } from "../setup/engine-client.ts";
import { processes, waitForEnd, tree, type Process } from "../setup/processes.ts";
import { sleep, until } from "../setup/until.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import TAKE_PLACE from "../setup/take-place.cjs?raw";

const engine = endLater(await startTestEngine());

/** Starts processes that try to outlive their sandbox. The host finds them by their argument. */
async function startStragglers(sandbox: TestSandbox): Promise<Process[]> {
  const mark = `86400.${Number.parseInt(randomBytes(3).toString("hex"), 16)}`;
  const asleep = `sleep ${mark}`;
  await sandbox.run(
    `nohup ${asleep} >/dev/null 2>&1 & setsid ${asleep} >/dev/null 2>&1 & ((trap '' HUP TERM INT; ${asleep}) >/dev/null 2>&1 &) ; ` +
      `python3 -c 'import os,sys\nif os.fork(): sys.exit()\nos.setsid()\nif os.fork(): sys.exit()\nfor fd in range(3): os.close(fd)\nos.environ.clear(); os.execv("/usr/bin/sleep", ["sleep", "${mark}"])'`,
  );
  const findSleepers = () => processes().filter(({ command }) => command === asleep);
  await expect.poll(() => findSleepers().length).toBe(4);
  return findSleepers();
}

const groupsOf = async (boot: string) =>
  (await findGroupParents()).flatMap(({ path }) =>
    readdirSync(path).filter((name) => name.startsWith(groupPrefix + boot)),
  );

const askAt = (url: string, headers: Record<string, string>): Promise<number> =>
  new Promise((resolve, reject) => {
    const call = request(`${url}/boot`, { headers }, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    call.on("error", reject).end();
  });

it("requests for a sandbox wait for its start, because a restarted Worker does not know whether it has started", async () => {
  const call = async (method: string, path: string, more: RequestInit = {}) =>
    await fetch(`${engine.url}/sandboxes/${path}`, {
      method,
      headers: { [SECRET_HEADER]: engine.secret },
      ...more,
    });
  const settings = {
    env: {},
    enableInternet: true,
    intercepts: { http: ["host.test"], https: [] },
  };
  const ids = Array.from({ length: availableParallelism() + 1 }, (_, at) => `restarted-${at}`);
  const starts = ids.map((id) => call("PUT", id, { body: JSON.stringify({ ...settings, actor: id }) }));
  // The last sandbox waits for its turn.
  await Promise.race(starts);
  const id = ids.at(-1) ?? "";
  const poll = call("GET", `${id}/outbound/poller`);
  const policy = call("PUT", `${id}/policy`, { body: JSON.stringify({ internet: "none", allowHosts: [] }) });
  const exit = call("GET", `${id}/exit`);
  const leaving = new AbortController();
  const left = Promise.allSettled(
    Array.from({ length: 256 }, () => call("GET", `${id}/ports/3000/`, { signal: leaving.signal })),
  );
  await sleep(200);
  leaving.abort();
  await left;
  expect((await policy).status).toBe(200);
  // Those that have disconnected meanwhile occupy no connection.
  expect((await call("GET", `${id}/ports/3000/`)).status).not.toBe(503);
  // Another poll ends the first one.
  const [next] = await Promise.all([call("GET", `${id}/outbound/another`), call("DELETE", id)]);
  expect({ first: (await poll).status, next: next.status }).toEqual({ first: 204, next: 404 });
  expect(JSON.parse(await (await exit).text())).toMatchObject({ exitCode: 0, seen: { connections: [] } });
  await Promise.all(ids.map(async (one, at) => [await starts[at], await call("DELETE", one)]));
});

it("an engine writes an object, and its names, to the disk when the Worker asks for it", async () => {
  const objects = temporaryDirectory();
  const { url, secret, close } = await startTestEngine({ objects });
  const sync = (folder: string, file: string) =>
    fetch(`${url}/sync`, {
      method: "POST",
      headers: { [SECRET_HEADER]: secret },
      body: JSON.stringify({ folder, file }),
    });
  mkdirSync(join(objects, "folder"));
  writeFileSync(join(objects, "folder", "file"), "content");
  const handle = await open(objects, "r");
  const synced = vi.spyOn(Object.getPrototypeOf(handle) as FileHandle, "sync");
  try {
    expect((await sync("folder", "file")).status).toBe(200);
    expect(synced).toHaveBeenCalledTimes(3);
    expect((await sync("folder", "missing")).status).toBe(503);
    for (const file of ["", "..", "a/b"]) expect((await sync("folder", file)).status).toBe(400);
  } finally {
    synced.mockRestore();
    await handle.close();
    await close();
  }
});

it("objects can be stored on a file system that cannot sync", async () => {
  const handle = await open("/proc", "r");
  await expect(handle.sync()).rejects.toThrow("EINVAL");
  await handle.close();
  await syncFile("/proc/self/status");
});

it("an engine copies the compile cache that an earlier engine stored, and sandboxes cannot change it", async () => {
  const marks = new Set<string>();
  const program = "cd /opt/sandbox-runtime/cache; cat mark; rm mark || find . -writable";
  try {
    // The cache of these programs may not be stored yet, and there may be caches of earlier programs.
    const result = await until(async () => {
      const names = readdirSync(CACHE_DIRECTORY).filter((name) => name.endsWith("-compiled"));
      for (const name of names) marks.add(join(CACHE_DIRECTORY, name, "mark"));
      for (const mark of marks) writeFileSync(mark, "of the earlier one");
      const later = await startTestEngine();
      try {
        const ended = await (await TestSandbox.start(later)).run(program);
        return ended.stdout !== "" && ended;
      } finally {
        await later.close();
      }
    });
    expect(result).toEqual({
      stdout: "of the earlier one",
      stderr: expect.stringMatching(/^rm: cannot remove 'mark': Read-only file system$/),
      exitCode: 0,
    });
  } finally {
    for (const mark of marks) rmSync(mark);
  }
});

describe("access to the engine", () => {
  it("requires the secret and this host's name", async () => {
    expect(await askAt(engine.url, { [SECRET_HEADER]: engine.secret })).toBe(200);
    expect(await askAt(engine.url, {})).toBe(401);
    expect(await askAt(engine.url, { [SECRET_HEADER]: "" })).toBe(401);
    expect(await askAt(engine.url, { [SECRET_HEADER]: `${engine.secret}x` })).toBe(401);
    expect(await askAt(engine.url, { [SECRET_HEADER]: engine.secret, host: "rebound.example" })).toBe(401);
  });

  it("is denied to an upgrade without the secret", async () => {
    const sandbox = await TestSandbox.start(engine);
    const socket = sandbox.openSocket("/ports/3000/rpc", {});
    const [error] = (await once(socket, "error")) as [Error];
    expect(error.message).toContain("401");
    await sandbox.destroy();
  });

  const others = Object.values(networkInterfaces())
    .flat()
    .filter((address) => address?.family === "IPv4" && !address.internal);
  it.runIf(others.length > 0)("is not possible through this machine's other addresses", async () => {
    for (const other of others) {
      const response = fetch(engine.url.replace("127.0.0.1", other?.address ?? ""));
      await expect(response).rejects.toThrow("fetch failed");
    }
  });
});

describe("a sandbox", () => {
  it("gives each command its own output, also while the copier of an earlier command's output still runs", async () => {
    const sandbox = await TestSandbox.start(engine);
    // The copier starts after 20 ms. While the copier is stopped, sandboxd itself ends the command's output.
    await sandbox.run("sleep 0.2; pkill -STOP -x sbx-copy; echo first");
    const next = await sandbox.run("pkill -CONT -x sbx-copy; sleep 0.3; echo next");
    await sandbox.destroy();
    expect(next.stdout).toBe("next");
  });

  it("leaves no process, directory or control group when it is destroyed", async () => {
    const ownEngine = endLater(await startTestEngine());
    const first = await TestSandbox.start(ownEngine);
    const sandbox = await TestSandbox.start(ownEngine);
    const stragglers = await startStragglers(sandbox);
    const directory = join(ownEngine.runDir, ownEngine.engine.boot, sandbox.id);
    expect(existsSync(directory)).toBe(true);
    await sandbox.destroy();
    await first.destroy();
    expect(await waitForEnd(stragglers, 0)).toEqual([]);
    expect(existsSync(directory)).toBe(false);
    for (const { path } of await findGroupParents()) {
      const groups = join(path, groupPrefix + ownEngine.engine.boot);
      expect(readdirSync(groups, { withFileTypes: true }).filter((entry) => entry.isDirectory())).toEqual([]);
    }
    expect(await sandbox.waitForEnd()).toEqual({ exitCode: 0, reason: "destroyed" });
  });

  it.each(["bubblewrap", "none"] as const)(
    "starts in a path that is too long for a socket, with isolation %s",
    async (isolation) => {
      const runDir = await mkdtemp(join(tmpdir(), `sandbox-mcp-${"deep".repeat(30)}-`));
      const deep = await startTestEngine({ runDir, isolation, log: () => undefined });
      try {
        const sandbox = await TestSandbox.start(deep);
        expect((await sandbox.run("echo there")).stdout).toBe("there");
        await sandbox.destroy();
      } finally {
        await deep.close();
      }
      const links = readdirSync(tmpdir(), { withFileTypes: true }).filter((entry) => entry.isSymbolicLink());
      expect(links.map(({ name }) => readlinkSync(join(tmpdir(), name)))).not.toContainEqual(
        expect.stringContaining(runDir),
      );
    },
  );

  it("ends when the same actor starts the next one", async () => {
    const first = await TestSandbox.start(engine, { actor: "same" });
    const second = await TestSandbox.start(engine, { actor: "same" });
    expect(await first.waitForEnd()).toMatchObject({ exitCode: 0 });
    expect((await second.run("echo second")).stdout).toBe("second");
    await second.destroy();
  });

  it("has its variables, which appear on no command line of the host", async () => {
    const secret = randomBytes(12).toString("hex");
    const sandbox = await TestSandbox.start(engine, { env: { GIVEN: secret, HOME: "/workspace" } });
    expect((await sandbox.run("echo $GIVEN $HOME")).stdout).toBe(`${secret} /workspace`);
    expect(processes().filter(({ command }) => command.includes(secret))).toEqual([]);
    await sandbox.destroy();
  });

  it("reports why it could not start, and leaves nothing behind", async () => {
    const directory = temporaryDirectory();
    await chmod(directory, 0o755);
    const control = join(directory, "control.cjs");
    await writeFile(control, 'throw new Error("broken on purpose");\n');
    const broken = endLater(await startTestEngine({ control }));
    await expect(TestSandbox.start(broken)).rejects.toThrow(
      /The sandbox did not start: [^]*broken on purpose/,
    );
    expect(readdirSync(join(broken.runDir, broken.engine.boot)).toSorted()).toEqual([
      "cache",
      "empty",
      "engine.pid",
      "files",
      "sandboxd.cjs",
    ]);
  });
});

it("the Worker reaches no port of a sandbox but those of its two servers", async () => {
  const sandbox = await TestSandbox.start(engine);
  await sandbox.run(
    "python3 -m http.server 8000 >/dev/null 2>&1 & until (: >/dev/tcp/127.0.0.1/8000); do sleep 0.1; done",
  );
  const response = await sandbox.call("GET", "/ports/8000/");
  expect(response.status).toBe(404);
  expect(await response.text()).toContain("port 8000 is not reachable");
  const [error] = (await once(sandbox.openSocket("/ports/8000/"), "error")) as [Error];
  expect(error.message).toContain("404");
  await sandbox.destroy();
});

it("sandboxd accepts only requests with the token of its sandbox's start", async () => {
  const sandbox = await TestSandbox.start(engine);
  // sandboxd responds.
  await sandbox.run("true");
  const place = `/ports/${SANDBOXD_PORT}/`;
  expect(await sandbox.ask("GET", "/")).toBe("sandboxd\n");
  expect((await sandbox.call("GET", place)).status).toBe(401);
  for (const token of [{}, { [TOKEN_HEADER]: "of another sandbox" }]) {
    const socket = sandbox.openSocket(place, { [SECRET_HEADER]: engine.secret, ...token });
    const [error] = (await once(socket, "error")) as [Error];
    expect(error.message).toContain("401");
  }
  await sandbox.destroy();
});

describe("a server in the place of sandboxd", () => {
  const PLACE = `/ports/${SANDBOXD_PORT}/`;
  let sandbox: TestSandbox;
  beforeAll(async () => {
    sandbox = await TestSandbox.start(engine);
    const server = [
      TAKE_PLACE,
      "const { createServer } = require('node:http'); const { WebSocketServer } = require('/opt/sandbox-runtime/node_modules/ws');",
      "const server = createServer((request, response) => {",
      "  if (request.url === '/switched') return void request.socket.write('HTTP/1.1 101 Switching Protocols\\r\\nConnection: upgrade\\r\\nUpgrade: other\\r\\n\\r\\n');",
      "  if (request.url === '/body') return void request.pipe(response);",
      "  response.end(request.method + ' ' + request.url + ' ' + request.headers.host + ' ' + ('x-local-engine-secret' in request.headers));",
      "});",
      "const sockets = new WebSocketServer({ noServer: true }).on('connection', (socket) => socket.on('message', (data, binary) => socket.send(data, { binary })));",
      "server.on('upgrade', (request, socket, head) => {",
      "  sockets.handleUpgrade(request, socket, head, (peer) => sockets.emit('connection', peer));",
      "});",
      "takePlace(server);",
      "sendBeats();",
    ];
    void sandbox.run(`node - <<'JS'\n${server.join("\n")}\nJS`).catch(() => undefined);
    const ask = async () => await (await sandbox.call("GET", PLACE)).text();
    await until(async () => (await ask()).startsWith("GET / "));
  });
  afterAll(async () => {
    await sandbox.destroy();
  });

  it("receives a request's path, query, host and body, but not the engine's secret", async () => {
    const response = await fetch(`${engine.url}/sandboxes/${sandbox.id}${PLACE}a%20b?c=%2F`, {
      method: "PUT",
      body: "body",
      headers: { [SECRET_HEADER]: engine.secret, "x-local-engine-host": "8000-box.example" },
    });
    expect(await response.text()).toBe("PUT /a%20b?c=%2F 8000-box.example false");
  });

  it.each(["GET", "DELETE"])(
    "receives the body of a chunked %s request as a body, not as a second request",
    async (method) => {
      const call = request(`${engine.url}/sandboxes/${sandbox.id}${PLACE}body`, {
        method,
        headers: { [SECRET_HEADER]: engine.secret, "transfer-encoding": "chunked" },
      });
      call.end("GET /body HTTP/1.1\r\nHost: other\r\n\r\n");
      const [response] = (await once(call, "response")) as [IncomingMessage];
      expect(await text(response)).toMatch(/^GET/);
    },
  );

  it("responds with 502 if its program switches protocols", async () => {
    const response = await sandbox.call("GET", `${PLACE}switched`);
    expect(response.status).toBe(502);
  });

  it("cannot respond to a later request with a response that was sent before that request", async () => {
    const hostile = await TestSandbox.start(engine);
    const program = `${TAKE_PLACE}
const responseOf = (body) => "HTTP/1.1 200 OK\\r\\nContent-Length: " + body.length + "\\r\\n\\r\\n" + body;
takePlace(net.createServer((socket) => {
  socket.on("error", () => undefined).on("data", (head) => {
    socket.write(responseOf(String(head).split(" ")[1]));
    setTimeout(() => socket.write(responseOf("planted")), 50);
  });
}));
sendBeats();`;
    void hostile.run(`node - <<'PROGRAM'\n${program}\nPROGRAM`).catch(() => undefined);
    const ask = async (path: string) =>
      await (await hostile.call("GET", `/ports/${SANDBOXD_PORT}${path}`)).text();
    await expect.poll(() => ask("/first")).toBe("/first");
    for (const path of ["/second", "/third", "/fourth"]) {
      await pause(200);
      expect(await ask(path)).toBe(path);
    }
    // Each sandbox has its own connections.
    expect(await (await sandbox.call("GET", PLACE)).text()).toMatch(/^GET/);
    await hostile.destroy();
  });
});

describe("the engine as a program", () => {
  interface Program extends EngineAddress {
    child: ChildProcess;
    boot: string;
  }
  const children: ChildProcess[] = [];

  /** Starts an engine that inherits 30 descriptors of the open file `leak`, as it might from a shell or a supervisor. */
  async function startProgram(runDir: string, leak: number): Promise<Program> {
    const secret = randomBytes(16).toString("hex");
    const extra: number[] = Array.from({ length: 30 }, () => leak);
    const main = join(repository, "local/engine/main.ts");
    const child = spawn(process.execPath, [main], { stdio: ["pipe", "pipe", "inherit", ...extra] });
    children.push(child);
    const settings = { secret, network: "none", isolation: "bubblewrap", runDir };
    child.stdin?.write(`${JSON.stringify(settings)}\n`);
    if (child.stdout === null) throw new Error("no stdout");
    for await (const line of createInterface({ input: child.stdout })) {
      const ready: { ready: boolean; url: string; boot: string } = JSON.parse(line);
      expect(ready.ready).toBe(true);
      return { child, secret, url: ready.url, boot: ready.boot };
    }
    throw new Error("the engine ended");
  }

  async function startWithLeakedFiles(): Promise<{
    program: Program;
    runDir: string;
    stragglers: Process[];
    sandbox: TestSandbox;
  }> {
    const runDir = temporaryDirectory();
    const secretFile = join(runDir, "leaked");
    await writeFile(secretFile, "leaked");
    const program = await startProgram(runDir, openSync(secretFile, "r"));
    await TestSandbox.start(program);
    const sandbox = await TestSandbox.start(program);
    return { program, runDir, sandbox, stragglers: await startStragglers(sandbox) };
  }

  afterEach(() => children.splice(0).forEach((child) => child.kill("SIGKILL")));

  it("leaves no process when it is killed, and its successor removes the rest", async () => {
    const { program, runDir, stragglers } = await startWithLeakedFiles();
    // The prepared sandbox must be complete: the next engine cannot end one that is still being made.
    const controlServers = () =>
      tree(program.child.pid ?? 0).filter(({ command }) => command === "sbx-control");
    await expect.poll(() => controlServers().length).toBe(3);
    const all = [...tree(program.child.pid ?? 0), ...stragglers];
    program.child.kill("SIGKILL");
    expect(await waitForEnd(all)).toEqual([]);
    expect(processes().filter(({ command }) => command.includes(program.boot))).toEqual([]);
    expect(existsSync(join(runDir, program.boot))).toBe(true);
    endLater(await startTestEngine({ runDir }));
    expect(existsSync(join(runDir, program.boot))).toBe(false);
    expect(await groupsOf(program.boot)).toEqual([]);
  });

  it("passes no open file on to a sandbox, and does not touch the state of a running engine", async () => {
    const { program, runDir, sandbox } = await startWithLeakedFiles();
    endLater((await startTestEngine({ runDir })).engine);
    expect(existsSync(join(runDir, program.boot))).toBe(true);
    expect((await sandbox.run("ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c leaked")).stdout).toBe("0");
  });
});

describe("bubblewrap", () => {
  it("requires perl, and the error names the command that installs it", async () => {
    const directory = temporaryDirectory();
    await chmod(directory, 0o755);
    for (const program of ["bwrap", "nsenter", "setpriv"])
      await symlink(join("/usr/bin", program), join(directory, program));
    expect(await checkBubblewrap(directory)).toMatchObject({
      works: false,
      reason: "perl is not installed",
      remedy: expect.stringContaining("perl"),
    });
  });

  it("reports its own error if it cannot make a sandbox", async () => {
    const directory = temporaryDirectory();
    await chmod(directory, 0o755);
    const script =
      '#!/bin/sh\n[ "$1" = --help ] && echo "--size --disable-userns" && exit\necho "bwrap: setting up uid map: Permission denied" >&2; exit 1\n';
    await writeFile(join(directory, "bwrap"), script, { mode: 0o755 });
    const check = await checkBubblewrap(`${directory}:${process.env.PATH}`);
    expect(check).toMatchObject({
      works: false,
      reason: expect.stringContaining("uid map: Permission denied"),
    });
  });
});
