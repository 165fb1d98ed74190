import { describe, expect, it, vi } from "vitest";
import { callsIn, idIn, killContainer, owner, waitForText, sh, until } from "../support.ts";

const sandbox = "listening";
const SERVER = `require("http").createServer().listen(Number(process.argv[2]), process.argv[3])`;
const waitForPort = (port: number) => `until (: </dev/tcp/127.0.0.1/${port}) 2>/dev/null; do sleep 0.1; done`;
const { command: run } = callsIn(sandbox);

describe("a program that listens", () => {
  it("is reported by a command that still runs, whatever address the program listens on", async () => {
    await owner.call("write_file", { sandbox, path: "server.js", content: SERVER });
    const started = await run("node server.js 8100 ::1 & exec node server.js 8101 127.0.0.1", {
      wait_seconds: 0,
    });
    const id = idIn(started);
    await waitForText(id, "listening: port 8100, 8101; expose_port gives it a URL");
    const result = await owner.call("get_result", { id, wait_seconds: 0 });
    expect(result.structured).toMatchObject({ state: "running", ports: [8100, 8101] });
    await owner.call("cancel_run", { id });
    expect(await sh(sandbox, "echo quiet")).toBe("quiet\n");
  });

  it("is reported only by the command that left it running", async () => {
    const started = await run(`node server.js 8102 >log 2>&1 & ${waitForPort(8102)}`);
    expect(started.text).toBe("exit_code: 0\nlistening: port 8102; expose_port gives it a URL");
    expect(started.structured).toMatchObject({ state: "succeeded", ports: [8102] });
    const other = await run("echo other");
    expect(other.text).toBe("exit_code: 0\nstdout: other");
    expect(other.structured.ports).toBeUndefined();
    const result = await owner.call("get_result", { id: started.structured.id });
    expect(result.structured).toMatchObject({ ports: [8102] });
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 120_000 });
    const later = await owner
      .call("get_result", { id: started.structured.id })
      .finally(() => vi.useRealTimers());
    expect(later.text).not.toContain("listening");
  });

  it("that starts to listen after the end of its command is reported once, in the result of a later command", async () => {
    const open = "late";
    await owner.call("write_file", { sandbox, path: open, content: "" });
    const started = await run(
      `(while [ -e ${open} ]; do sleep 0.05; done; exec node server.js 8104) >log 2>&1 &`,
    );
    expect(started.text).not.toContain("listening");
    const later = await run(
      `rm ${open}; until grep -q ":1FA8 .* 0A " /proc/net/tcp /proc/net/tcp6; do sleep 0.1; done`,
    );
    expect(later.text).toBe("exit_code: 0\nlistening: port 8104; expose_port gives it a URL");
    expect((await run("echo other")).text).toBe("exit_code: 0\nstdout: other");
  });

  it.each([
    {
      language: "python",
      own: "import socket; server = socket.create_server(('127.0.0.1', 8105))",
      later: 8106,
      start: (command: string) => `import subprocess; child = subprocess.Popen(${command}, shell=True)`,
    },
    {
      language: "javascript",
      own: "const server = require('net').createServer(); await new Promise((done) => server.listen(8107, done))",
      later: 8108,
      start: (command: string) => `const child = require('child_process').spawn(${command}, { shell: true })`,
    },
  ])(
    "is reported by code that listens or has started the program: $language",
    async ({ language, own, later, start }) => {
      const code = (source: string) => owner.call("run_code", { sandbox, language, code: source });
      const [port = ""] = /\b81\d\d/.exec(own) ?? [];
      expect((await code(own)).text).toContain(`listening: port ${port}; expose_port`);
      expect((await code("1")).text).toBe("result: 1");
      const gate = `/workspace/listen-${later}`;
      const child = `until [ -e ${gate} ]; do sleep 0.05; done; exec node /workspace/server.js ${later}`;
      await code(start(JSON.stringify(child)));
      const hex = later.toString(16).toUpperCase();
      const { text } = await run(
        `touch ${gate}; until grep -q ":${hex} .* 0A " /proc/net/tcp /proc/net/tcp6; do sleep 0.1; done`,
      );
      expect(text).toContain(`listening: port ${later}; expose_port`);
      expect((await run("echo other")).text).toBe("exit_code: 0\nstdout: other");
    },
  );

  it("that replaces another program is reported by the command that started it, on the same port or another one", async () => {
    const serve = (port: number) => `node server.js ${port} >log 2>&1 & echo $! >pid; ${waitForPort(port)}`;
    await run(serve(8109));
    for (const port of [8109, 8110]) {
      const replaced = await run(`kill $(cat pid); while kill -0 $(cat pid); do :; done; ${serve(port)}`);
      expect(replaced.text).toContain(`listening: port ${port}`);
    }
    await run("kill $(cat pid)");
  });

  it("is not reported on a port that cannot be exposed", async () => {
    await owner.call("write_file", { sandbox, path: "server.js", content: SERVER });
    const started = await run(
      `(node server.js 1000 & node server.js 3128 ::1 & node server.js 8111 &) >log 2>&1; ${[1000, 8111].map(waitForPort).join("; ")}; ${waitForPort(3128).replace("127.0.0.1", "::1")}`,
    );
    expect(started.text).toBe("exit_code: 0\nlistening: port 8111; expose_port gives it a URL");
    expect(started.structured).toMatchObject({ ports: [8111] });
  });

  it.each([
    ["cancelled", (id: string) => owner.call("cancel_run", { id })],
    ["timed_out", () => undefined],
    ["failed", () => run("pkill -f '[s]erver.js 8112'")],
    ["lost", () => killContainer(sandbox)],
  ] as const)("is not reported by a run that is %s", async (state, end) => {
    await owner.call("write_file", { sandbox, path: "server.js", content: SERVER });
    const started = await run("node server.js 8112", {
      session: state,
      wait_seconds: 0,
      timeout_seconds: state === "timed_out" ? 5 : 600,
    });
    const id = idIn(started);
    await waitForText(id, "port 8112");
    await end(id);
    const ended = await owner.call("get_result", { id, wait_seconds: 45 });
    expect(ended.structured.state).toBe(state);
    expect(ended.text).not.toContain("listening");
    expect(ended.structured.ports).toBeUndefined();
  });

  it("is not reported after its end", async () => {
    const started = await run("node server.js 8103 & sleep 3; kill $!; wait; echo over; sleep 1000", {
      wait_seconds: 0,
    });
    const id = idIn(started);
    await waitForText(id, "port 8103");
    await waitForText(id, "over");
    const reportedPorts = async () =>
      (await owner.call("get_result", { id, wait_seconds: 0 })).structured.ports;
    await until(async () => (await reportedPorts()) === undefined);
    expect(await reportedPorts()).toBeUndefined();
    await owner.call("cancel_run", { id });
    await owner.call("destroy_sandbox", { sandbox });
  });
});
