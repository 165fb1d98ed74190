/** Clients disconnect, and the server ends, during runs and while a workspace changes. */
import { connect } from "node:net";
import { describe, expect, it } from "vitest";
import { endLater } from "../setup/end-later.ts";
import { tree, waitForEnd } from "../setup/processes.ts";
import { startServer, TOKEN } from "../setup/server.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import { callTool } from "../setup/tool.ts";
import { idIn, MCPClient } from "../setup/mcp-client.ts";
import { sleep, until } from "../setup/until.ts";
import { sleepersIn, START_SLEEPERS, startFaultServer } from "./support.ts";

const server = endLater(await startFaultServer());

interface Listed {
  id: string;
  state: string;
  title: string;
}

async function listRuns(sandbox: string): Promise<Listed[]> {
  return (await server.call("list_runs", { sandbox })).structured.runs as Listed[];
}

describe("when a client disconnects", () => {
  it("its run continues, and another client finds it with all of its output", async () => {
    const sandbox = "gone";
    const abort = new AbortController();
    const command = "for i in {1..30}; do echo $i; sleep 0.1; done; echo end";
    const answer = server.call("run_command", { sandbox, command }, abort.signal);
    await until(async () => (await listRuns(sandbox)).length > 0);
    abort.abort();
    await expect(answer).rejects.toThrow("abort");
    const [run] = await listRuns(sandbox);
    expect((await server.call("get_result", { id: run?.id })).text).toMatch(/\n30\nend/);
  });

  it("an incomplete request has no effect, and the server continues", async () => {
    const sandbox = "half";
    const { hostname, port } = new URL(server.server.url);
    const body = JSON.stringify({
      jsonrpc: "2.0",
      id: 1,
      method: "tools/call",
      params: { name: "run_command", arguments: { sandbox, command: "touch done" } },
    });
    for (const sent of [0, 10, body.length - 1]) {
      const socket = connect(Number(port), hostname);
      socket.on("error", () => undefined);
      socket.write(
        `POST /mcp HTTP/1.1\r\nHost: ${hostname}:${port}\r\nAuthorization: Bearer ${TOKEN}\r\nContent-Type: application/json\r\n` +
          `Accept: application/json, text/event-stream\r\nContent-Length: ${body.length}\r\n\r\n${body.slice(0, sent)}`,
      );
      // The server does not show when it has read the incomplete request.
      await sleep(50);
      socket.resetAndDestroy();
    }
    // Gives a wrong effect the time to appear.
    await sleep(300);
    expect(await server.sh("ls -A", { sandbox })).toBe("");
  });
});

describe("when SIGTERM stops the server during 20 runs", () => {
  it("the server answers waiting calls and ends cleanly, and after its restart every run is marked lost, gives the reason and keeps its output", async () => {
    const runs = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        server.call("run_command", {
          sandbox: `stop-${index % 3}`,
          session: `s${index}`,
          command: `echo run ${index}; while :; do sleep 0.1; echo .; done`,
          wait_seconds: 0,
        }),
      ),
    );
    // Output of the last second may be missing. Printing all lines takes 1.4 s.
    const printed = "\n.".repeat(15);
    for (const run of runs)
      await until(async () =>
        (await server.call("get_result", { id: idIn(run), cursor: 0, wait_seconds: 0 })).text.includes(
          printed,
        ),
      );
    await server.sh(START_SLEEPERS, { sandbox: "stop-0" });
    const all = server.all();
    expect(sleepersIn(all)).toHaveLength(3);
    // Only the second call asks for progress, so the server serves the two in different ways.
    const waiting = ["86401", "86402"].map((seconds, index) =>
      new MCPClient(server.server.url, TOKEN).call(
        "run_command",
        { sandbox: "stop-1", session: seconds, command: `sleep ${seconds}`, wait_seconds: 50 },
        index === 0 ? {} : { progressToken: "p" },
      ),
    );
    const isAsleep = (seconds: number) => server.all().some(({ command }) => command === `sleep ${seconds}`);
    await until(() => isAsleep(86401) && isAsleep(86402));
    process.kill(server.pid("start"), "SIGTERM");
    for (const { text } of await Promise.all(waiting))
      expect(text).toContain("The server stopped during this call");
    expect(await server.server.exited).toBe(0);
    expect(await waitForEnd(all)).toEqual([]);
    expect(server.server.stderr()).not.toMatch(/unexpected|error/i);
    await server.restart();
    for (const [index, run] of runs.entries()) {
      const { text } = await server.call("get_result", { id: idIn(run), wait_seconds: 0 });
      expect(text).toMatch(/state: lost[^]*stopped while the server was down/);
      expect(text).toContain(`run ${index}\n.\n`);
    }
    expect(await server.sh("echo works", { sandbox: "stop-0" })).toBe("works\n");
  });
});

async function savedAt(name: string): Promise<number> {
  const { structured } = await server.call("list_sandboxes");
  const listed = structured.sandboxes as { name: string; saved_at?: string }[];
  return Date.parse(listed.find((one) => one.name === name)?.saved_at ?? "") || 0;
}

// Each test ends the server, and all except the last start it again.
describe("when the server ends while a workspace changes", () => {
  it("everything up to the last save is restored after kill -9, and the next result gives the time of that save", async () => {
    await server.sh(
      "mkdir -p src; for i in {1..500}; do echo $i > src/$i; done; head -c 3000000 /dev/urandom > data; sha256sum data > sum",
    );
    const changed = Date.now();
    await until(async () => (await savedAt("default")) > changed);
    process.kill(server.pid("start"), "SIGKILL");
    await server.restart();
    const next = await server.call("run_command", { command: "sha256sum -c sum; cat src/* | wc -l" });
    expect(next.structured.stdout).toBe("data: OK\n500\n");
    expect(next.text).toMatch(/The sandbox was restarted: its files are as saved at 20/);
  });

  it("nothing is missing after SIGTERM, not even the latest change", async () => {
    await server.sh("head -c 20000000 /dev/urandom >large");
    await server.sh("true", { sandbox: "other" });
    await server.call("write_file", { path: "young", content: "a moment old" });
    await server.call("write_file", { sandbox: "other", path: "young", content: "another" });
    server.server.child.kill("SIGTERM");
    await server.restart();
    expect(await server.sh("cat young")).toBe("a moment old");
    const other = await server.call("read_file", { sandbox: "other", path: "young" });
    expect(other.text).toContain("The sandbox was stopped together with the server: its files are as saved");
    expect(other.text).toContain("another");
  });

  it("a change is saved when the server's terminal closes", async () => {
    const directory = temporaryDirectory();
    const flags = ["--state-dir", directory, "--network", "none"];
    // The terminal closes with this program. Its name is not the one of the server's own parts.
    const within = ["python3", "-c", "import pty, sys; pty.spawn(sys.argv[1:])"];
    const inTerminal = await startServer({ flags, within });
    await callTool(inTerminal.url, "run_command", { command: "head -c 50000000 /dev/urandom >large" });
    await callTool(inTerminal.url, "write_file", { path: "young", content: "a moment old" });
    const all = tree(inTerminal.child.pid ?? Number.NaN);
    process.kill(inTerminal.child.pid ?? Number.NaN, "SIGKILL");
    expect(await waitForEnd(all, 60_000)).toEqual([]);
    const next = endLater(await startServer({ flags }));
    expect(await callTool(next.url, "run_command", { command: "cat young" })).toContain("a moment old");
  });

  it("a change is saved after SIGTERM although many programs of its sandbox use the processors", async () => {
    const busy = "echo late > young; for i in {1..100}; do while :; do :; done & done";
    await server.call("run_command", { sandbox: "busy", command: busy });
    server.server.child.kill("SIGTERM");
    await server.restart();
    expect(await server.sh("cat young", { sandbox: "busy" })).toBe("late\n");
  });

  it("the log warns that workspaces were perhaps not saved if the Worker does not respond after SIGTERM", async () => {
    await server.call("write_file", { path: "young", content: "a moment old" });
    process.kill(server.pid("workerd"), "SIGSTOP");
    process.kill(server.pid("start"), "SIGTERM");
    const words = "workspaces of 2 running sandboxes may be unsaved. Their previous saves are intact.";
    const stderr = await until(() => server.server.stderr().includes(words) && server.server.stderr());
    expect(stderr).toContain(words);
  });
});
