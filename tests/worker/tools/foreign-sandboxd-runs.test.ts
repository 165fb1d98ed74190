/** A user's program in place of sandboxd sends arbitrary reports about commands and code. */
import { beforeAll, describe, expect, it } from "vitest";
import { callsIn, evict, idIn, runInKernel, owner, sh, until } from "../support.ts";
import TAKE_PLACE from "../../setup/take-place.cjs?raw";

const sandbox = "foreign-runs";
const { command, code } = callsIn(sandbox);

/** Takes sandboxd's place. The words of a command select its reports; for code the file /tmp/scenario does. */
const PROGRAM = `${TAKE_PLACE}
const { readFileSync, writeFileSync } = fs;
const { createServer } = require("node:http");
const { WebSocketServer } = require("/opt/sandbox-runtime/node_modules/ws");
const piece = (id, offset, data, stream = 0) => {
  const head = Buffer.alloc(11 + id.length);
  head[0] = 1; head[1] = stream; head[2] = id.length;
  head.write(id, 3, "ascii");
  head.writeDoubleBE(offset, 3 + id.length);
  return Buffer.concat([head, Buffer.from(data)]);
};
/** An event that ends the command, if the server accepts it. */
const failed = (id) => ({ type: "ended", id, status: 7, stdout: 0, stderr: 0 });
const scenarios = {
  words: (socket) => socket.send("nope"),
  longEvent: (socket, id) => socket.send(JSON.stringify({ ...failed(id), more: "x".repeat(20_000) })),
  flood: (socket, id) => {
    for (let at = 0; at < 400; at++) socket.send(piece(id, at * 200_000, Buffer.alloc(200_000, 120)));
  },
  never: () => undefined,
  noUpgrade: () => undefined,
  running: (socket, id) => setInterval(() => socket.send(JSON.stringify({ type: "running", id })), 20),
  another: (socket, id) => {
    for (const other of ["0", "zzzz", id.slice(0, -1)]) {
      socket.send(piece(other, 0, "not its own"));
      socket.send(JSON.stringify({ type: "ended", id: other, status: 9, stdout: 11, stderr: 0 }));
    }
    socket.send(piece(id, 0, "its own"));
    socket.send(JSON.stringify({ type: "ended", id, status: 0, stdout: 7, stderr: 0 }));
  },
  twice: (socket, id) => {
    for (const status of [3, 0, 5]) socket.send(JSON.stringify({ type: "ended", id, status, stdout: 0, stderr: 0 }));
    socket.send(piece(id, 0, "after its end"));
  },
  unknown: (socket, id) => socket.send(JSON.stringify({ type: "unknown", id })),
  gone: (socket, id, call) => socket.send(JSON.stringify({ type: call.type === "start" ? "running" : "unknown", id })),
  cut: (socket, id) => socket.send(JSON.stringify({ type: "ended", id, status: 0, stdout: 0, stderr: 0, cut: true })),
  full: (socket, id) =>
    socket.send(JSON.stringify({ type: "ended", id, status: 0, stdout: 0, stderr: 0, cut: true, noSpace: true })),
  refused: (socket, id) => socket.send(JSON.stringify({ type: "refused", id, reason: "exhausted", message: "x" })),
};
const commands = new Map();
const broken = new Set();
const server = createServer((request, response) => response.end("foreign\\n"));
const sockets = new WebSocketServer({ noServer: true });
server.on("upgrade", (request, socket, head) => {
  if (readFileSync("/tmp/scenario", "utf8") === "noUpgrade") return;
  sockets.handleUpgrade(request, socket, head, (peer) => {
    peer.on("error", () => undefined);
    peer.on("message", (data) => {
      const call = JSON.parse(String(data));
      if (call.type === "ping") return peer.send('{"type":"pong"}');
      if (call.type === "start") commands.set(call.id, call.command);
      if (!["start", "follow", "code", "input"].includes(call.type)) return;
      if (call.type === "code") writeFileSync("/tmp/asked", readFileSync("/tmp/scenario", "utf8"));
      const [scenario, times] = (commands.get(call.id) ?? readFileSync("/tmp/scenario", "utf8")).split(" ");
      if (times !== "once" || !broken.has(call.id)) scenarios[scenario](peer, call.id, call);
      else peer.send(JSON.stringify({ type: "ended", id: call.id, status: 0, stdout: 0, stderr: 0 }));
      broken.add(call.id);
    });
  });
});
sendBeats();
takePlace(server);
writeFileSync("/tmp/ready", "");
`;

/** Uses a kernel, because sandboxd cannot be trusted here. */
const setScenario = (scenario: string, where = sandbox) =>
  runInKernel(where, `open("/tmp/scenario", "w").write(${JSON.stringify(scenario)})`);

/** Puts the program in sandboxd's place, which reports `scenario` until the next one is set. */
async function takePlace(where: string, scenario: string): Promise<void> {
  await owner.call("write_file", { sandbox: where, path: "/tmp/foreign.cjs", content: PROGRAM });
  // The kernel exists already, and responds over the SDK's own connection.
  await callsIn(where).code("1");
  await setScenario(scenario, where);
  const start = `import os, subprocess
subprocess.run("setsid -f node /tmp/foreign.cjs >/tmp/foreign.log 2>&1", shell=True, stdin=subprocess.DEVNULL)`;
  await runInKernel(where, start);
  await until(async () => (await runInKernel(where, 'print(os.path.exists("/tmp/ready"))')).includes("True"));
  // The eviction closes the actor's connection to the real sandboxd.
  await evict(where);
}

/** A sandbox whose program accepts no connection. */
const deaf = "foreign-deaf";

beforeAll(async () => {
  await Promise.all([takePlace(sandbox, "never"), takePlace(deaf, "noUpgrade")]);
  await until(async () => (await command("another")).text.includes("its own"));
});
// These two tests wait for the same time limit.
describe.concurrent("a program in place of sandboxd that never reports the end of a command", () => {
  it("cannot prevent that end, whatever else it reports", async () => {
    const ended = ["flood", "never", "running"].map(async (scenario) => {
      const { text } = await command(scenario, { session: scenario, timeout_seconds: 1, wait_seconds: 45 });
      expect(text.slice(0, 1000)).toMatch(/(state: timed_out|has not responded)[^]*destroy_sandbox/);
      expect(text.length).toBeLessThan(200_000);
    });
    await Promise.all(ended);
  });

  it("has a time limit if it accepts no connection", async () => {
    const { text } = await callsIn(deaf).command("true", { timeout_seconds: 1, wait_seconds: 45 });
    expect(text).toMatch(/(state: timed_out|has not responded)[^]*destroy_sandbox/);
  });
});

describe("a program in place of sandboxd that runs a command", () => {
  it.each(["words", "longEvent"])(
    "gets the request again over another connection if it violates the protocol: %s",
    async (scenario) => {
      const { structured } = await command(`${scenario} once`);
      expect(structured).toMatchObject({ state: "succeeded", stdout: "" });
    },
  );

  it("is abandoned if it violates the protocol repeatedly", async () => {
    expect((await command("words")).text).toMatch(/has not responded[^]*destroy_sandbox/);
  });

  it("can report only about the command, and only one end of it", async () => {
    expect((await command("another")).structured).toMatchObject({ state: "succeeded", stdout: "its own" });
    expect((await command("twice")).structured).toMatchObject({ state: "failed", exit_code: 3, stdout: "" });
    expect((await command("unknown")).text).toContain(
      "The command's result is lost: its record in the sandbox was deleted during the run. Run the command again if that is safe.",
    );
    expect((await command("cut")).text).toContain(
      "Some output may be missing: the process that saves it was killed in the sandbox.",
    );
    expect((await command("full")).text).toContain(
      "Some output is missing: the sandbox's disk was full. Delete files, or redirect output to /dev/null.",
    );
    expect((await command("refused")).text).toMatch(/process/);
  });

  it("can report after a restart of the actor that it does not know the command", async () => {
    const id = idIn(await command("gone", { session: "gone", wait_seconds: 0 }));
    await evict(sandbox);
    const { text } = await owner.call("get_result", { id });
    expect(text).toContain("state: lost");
    expect(text).toContain(
      "The sandbox has no record of the command. Either the server was restarted before the command ran, or the record was deleted. Run it again.",
    );
  });
});

describe("a program in place of sandboxd that reports on code", () => {
  it.each(["words", "never", "running", "another", "unknown"])(
    "cannot prevent the end of the code: %s",
    async (scenario) => {
      await setScenario(scenario);
      // The server asks sandboxd about code that has run for half a second.
      const { structured, text } = await code("import time; print('begun'); time.sleep(1); print('over')", {
        timeout_seconds: 3,
        wait_seconds: 45,
      });
      expect(structured.state).toMatch(/succeeded|failed|timed_out/);
      expect(text.length).toBeLessThan(200_000);
      expect(await runInKernel(sandbox, 'print(open("/tmp/asked").read())')).toBe(`${scenario}\n`);
    },
  );
});

it("a program in place of sandboxd ends with the sandbox", async () => {
  await owner.call("destroy_sandbox", { sandbox });
  expect(await sh(sandbox, "echo new")).toBe("new\n");
});
