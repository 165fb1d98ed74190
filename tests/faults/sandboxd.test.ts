/** sandboxd hangs, and what keeps it running replaces it. */
import { randomBytes } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { idIn } from "../setup/mcp-client.ts";
import { tree } from "../setup/processes.ts";
import { until } from "../setup/until.ts";
import { type Bed, LONG, startBed } from "./support.ts";

let bed: Bed;
beforeAll(async () => {
  bed = await startBed();
  return () => bed.close();
});

/** A sandbox with a session and a file. Returns a function for the process id of its current sandboxd on the host. */
async function prepared(sandbox: string): Promise<() => Promise<number>> {
  await bed.sh("export KEPT=kept; echo was there >before", { sandbox });
  const first = await bed.first(sandbox);
  return () => until(() => tree(first).find(({ command }) => command === "sbxd")?.pid);
}

/** What calls made while sandboxd hangs are answered, as if it did not: each is made once. */
async function served(sandbox: string): Promise<unknown[]> {
  const [ran, appended, read] = await Promise.all([
    bed.call("run_command", { sandbox, command: 'echo "$KEPT" >>runs; cat runs', timeout_seconds: 120 }),
    bed.call("write_file", { sandbox, path: "appended", content: "x", append: true }),
    bed.call("read_file", { sandbox, path: "before" }),
  ]);
  return [ran.structured.stdout ?? ran.text, appended.structured.size ?? appended.text, read.text];
}
const SERVED = ["kept\n", 1, "```\nwas there\n```"];

/** Evaluates its argument in sandboxd, by the debugger. Every process that may signal sandboxd can open it. */
const EVALUATE = `
const sandboxd = require("node:child_process").execSync("pgrep -x sbxd").toString();
process.kill(Number(sandboxd), "SIGUSR1");
const evaluate = async () => {
  const [{ webSocketDebuggerUrl }] = await (await fetch("http://127.0.0.1:9229/json")).json();
  const socket = new WebSocket(webSocketDebuggerUrl);
  socket.onopen = () => {
    socket.send(JSON.stringify({ id: 1, method: "Runtime.evaluate", params: { expression: process.argv[2] } }));
    setTimeout(() => process.exit(), 500);
  };
};
const again = () => evaluate().catch(() => setTimeout(again, 50));
again();
`;

async function evaluate(sandbox: string, expression: string): Promise<void> {
  await bed.call("write_file", { sandbox, path: "/tmp/evaluate.cjs", content: EVALUATE });
  await bed.sh(`setsid -f node /tmp/evaluate.cjs '${expression}' >/dev/null 2>&1`, { sandbox });
}

/** Takes connections in sandboxd's place, and answers none. */
const SILENT = `
require("node:fs").unlinkSync("/run/sandbox/sandboxd.sock");
require("node:net").createServer(() => undefined).listen("/run/sandbox/sandboxd.sock");
`;

// They wait most of the time: each in a sandbox of its own.
describe.concurrent("sandboxd hung for good", () => {
  it("stopped (SIGSTOP) while idle: another one serves the next calls", async () => {
    const sandbox = "idle";
    const sandboxd = await prepared(sandbox);
    process.kill(await sandboxd(), "SIGSTOP");
    expect(await served(sandbox)).toEqual(SERVED);
  });

  it("stopped during a run: the run continues, and its output is neither repeated nor lost", async () => {
    const sandbox = "running";
    const sandboxd = await prepared(sandbox);
    const command = "export KEPT=later; for i in {0..299}; do echo $i; sleep 0.1; done; exit 3";
    const run = await bed.call("run_command", { sandbox, command, wait_seconds: 0, timeout_seconds: 150 });
    const result = () => bed.call("get_result", { id: idIn(run), cursor: 0, wait_seconds: 0 });
    await until(async () => (await result()).text.includes("\n5\n"));
    process.kill(await sandboxd(), "SIGSTOP");
    const ended = await until(async () => {
      const { structured } = await bed.call("get_result", { id: idIn(run), wait_seconds: 50 });
      return structured.state === "running" ? undefined : structured;
    }, 120_000);
    expect(ended).toMatchObject({ state: "failed", exit_code: 3 });
    const { text } = await result();
    expect(text.match(/^\d+$/gm)).toEqual(Array.from({ length: 300 }, (_, index) => String(index)));
    expect(await bed.sh("echo $KEPT", { sandbox })).toBe("later\n");
  });

  it("stopped during a write: the file is unchanged or complete", async () => {
    const sandbox = "writing";
    const sandboxd = await prepared(sandbox);
    await bed.sh("echo old >file", { sandbox });
    const half = randomBytes(3_000_000);
    const sent = Promise.withResolvers<void>();
    const body = new ReadableStream({
      async start(controller) {
        controller.enqueue(half);
        await sent.promise;
        controller.enqueue(half);
        controller.close();
      },
    });
    const upload = async (content: BodyInit) => {
      const made = await bed.call("file_link", { sandbox, path: "file", direction: "upload" });
      const init = { method: "PUT", body: content, duplex: "half" };
      return (await fetch(String(made.structured.url), init)).status;
    };
    const written = upload(body);
    const writes = () => bed.sh("ls /var/lib/sandbox-mcp/writes", { sandbox });
    await until(async () => (await writes()) !== "");
    process.kill(await sandboxd(), "SIGSTOP");
    sent.resolve();
    const size = (await written) < 300 ? "6000000\n" : "4\n";
    expect(await bed.sh("stat -c %s file", { sandbox })).toBe(size);
    expect(await upload(half)).toBe(201);
    expect(await bed.sh("stat -c %s file", { sandbox })).toBe("3000000\n");
    await until(async () => (await writes()) === "");
  });

  it("its event loop blocked: another one serves the next calls", async () => {
    const sandbox = "waiting";
    const sandboxd = await prepared(sandbox);
    const stuck = await sandboxd();
    await evaluate(sandbox, "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)");
    await until(async () => (await sandboxd()) !== stuck);
    expect(await served(sandbox)).toEqual(SERVED);
  });

  it.runIf(LONG)("its event loop in an endless loop: another one serves the next calls", async () => {
    const sandbox = "looping";
    const sandboxd = await prepared(sandbox);
    const stuck = await sandboxd();
    await evaluate(sandbox, "for (;;);");
    // A busy machine leaves the loop little time, which is what it is judged by.
    await until(async () => (await sandboxd()) !== stuck, 150_000);
    expect(await served(sandbox)).toEqual(SERVED);
  });

  it("a program in its place accepts connections and never responds: another sandboxd serves the next calls", async () => {
    const sandbox = "replaced";
    const sandboxd = await prepared(sandbox);
    const before = await sandboxd();
    await bed.call("write_file", { sandbox, path: "/tmp/silent.cjs", content: SILENT });
    await bed.sh("setsid -f node /tmp/silent.cjs >/tmp/silent", { sandbox });
    await until(async () => (await sandboxd()) !== before);
    expect(await served(sandbox)).toEqual(SERVED);
  });
});
