/**
 * The connection between the Worker and the engine breaks. The Worker connects through a proxy, which can break all
 * connections, also in the middle of a message. The other parts are those of `npm start`.
 */
import { type AddressInfo, type Server, type Socket, connect, createServer } from "node:net";
import { beforeAll, describe, expect, it } from "vitest";
import { tree, withoutForkedCopies } from "../setup/processes.ts";
import { startParts } from "../setup/parts.ts";
import { TOKEN } from "../setup/server.ts";
import { idIn, type Result } from "../setup/mcp-client.ts";
import { tool } from "../setup/tool.ts";
import { sleep, until } from "../setup/until.ts";
import { LONG } from "./support.ts";

/** A TCP proxy on loopback that can break its connections. The engine accepts only requests that name its own address. */
class FlakyProxy {
  readonly #server: Server;
  readonly #port: number;
  readonly #pairs = new Set<Socket>();
  #budget = Infinity;
  #isCutting = false;
  #cuts = 0;
  #watched: { pattern: RegExp; times: number } | undefined;

  constructor(port: number) {
    this.#port = port;
    this.#server = createServer((workerSide) => {
      const engineSide = connect(port, "127.0.0.1");
      for (const [from, to] of [
        [workerSide, engineSide],
        [engineSide, workerSide],
      ] as const) {
        from.setNoDelay(true);
        this.#pairs.add(from);
        from.on("data", (data: Buffer) => {
          this.#pass(from === workerSide ? this.#addressed(data) : data, to);
          if (from === workerSide && this.#isWatched(data)) workerSide.destroy();
        });
        from.on("error", () => to.destroy());
        from.on("end", () => to.end());
        from.on("close", () => (this.#pairs.delete(from), to.destroy()));
      }
    });
  }

  async listen(): Promise<number> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    return this.port;
  }

  /** How often a message was cut. */
  get cuts(): number {
    return this.#cuts;
  }

  cut(): void {
    for (const socket of this.#pairs) socket.destroy();
  }

  /** Breaks every connection after this number of bytes, also within a message. */
  cutAfter(bytes: number): void {
    this.#budget = bytes;
  }

  /** Closes the connection before the response to a matching request, this number of times. */
  cutRequests(pattern: RegExp, times: number): void {
    this.#watched = { pattern, times };
  }

  close(): void {
    this.#server.close();
    this.cut();
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  #addressed(data: Buffer): Buffer {
    const at = data.indexOf(`127.0.0.1:${this.port}\r\n`);
    if (at < 0) return data;
    const before = data.subarray(0, at);
    const after = data.subarray(at + `127.0.0.1:${this.port}`.length);
    return Buffer.concat([before, Buffer.from(`127.0.0.1:${this.#port}`), after]);
  }

  #isWatched(data: Buffer): boolean {
    const watched = this.#watched;
    if (!watched || watched.times === 0 || !watched.pattern.test(data.toString("latin1"))) return false;
    watched.times--;
    this.#cuts++;
    return true;
  }

  #pass(data: Buffer, to: Socket): void {
    // TCP never delivers the bytes that follow a lost part.
    if (this.#isCutting) return;
    if (data.length <= this.#budget) {
      this.#budget -= data.length;
      to.write(data);
      return;
    }
    to.write(data.subarray(0, this.#budget));
    this.#budget = Infinity;
    this.#cuts++;
    this.#isCutting = true;
    // Sends the data before it ends the connection.
    setTimeout(() => {
      this.#isCutting = false;
      this.cut();
    }, 1);
  }
}

let proxy: FlakyProxy;
let url = "";
const logged: string[] = [];

beforeAll(async () => {
  const parts = await startParts({
    engine: { prepareSandbox: true },
    engineURLFor: async (engine) => {
      proxy = new FlakyProxy(Number(new URL(engine).port));
      return `http://127.0.0.1:${await proxy.listen()}`;
    },
    onLog: ({ message }) => logged.push(message),
  });
  ({ url } = parts);
  return async () => {
    await parts.close();
    proxy.close();
  };
});

const call = (name: string, args: Record<string, unknown>): Promise<Result> => tool(url, name, args);

async function sh(sandbox: string, command: string): Promise<string> {
  const answer = await call("run_command", { sandbox, command });
  if (answer.structured.state !== "succeeded")
    throw new Error(`${command}: ${answer.text}\n${logged.slice(-3).join("\n")}`);
  return String(answer.structured.stdout);
}

/** The number of this engine's sandboxes. */
const countSandboxes = (): number =>
  withoutForkedCopies(tree(process.pid)).filter(({ command }) => command === "sbx-init").length;

describe("when the connection between the Worker and the engine is cut while a sandbox starts", () => {
  it("the server retries the start until it succeeds, and makes only one sandbox", async () => {
    // Only the prepared sandbox exists.
    await until(() => countSandboxes() === 1);
    const before = proxy.cuts;
    proxy.cutRequests(/^PUT \/sandboxes\/[^/ ]+ HTTP/, 5);
    const answer = await call("run_command", { sandbox: "start", command: "echo done" });
    expect(answer.text).toContain("done");
    expect(proxy.cuts - before).toBe(5);
    // The sandbox of the call, and the next prepared one, which starts a moment later.
    await until(() => countSandboxes() === 2);
    await sleep(1000);
    expect(countSandboxes()).toBe(2);
  });
});

describe("when the connection between the Worker and the engine is cut in the middle of a message", () => {
  const sandbox = "cut";
  beforeAll(async () => void (await sh(sandbox, "true")));

  it("the server follows a command to its end, and neither repeats nor loses output", async () => {
    const before = proxy.cuts;
    const answer = call("run_command", {
      sandbox,
      command: "for i in {1..100}; do echo $i; sleep 0.1; done",
    });
    for (let cut = 0; cut < 3; cut++) {
      await sleep(1300);
      proxy.cutAfter(50 * cut);
      await until(() => proxy.cuts - before > cut);
    }
    const { text, structured } = await answer;
    expect(proxy.cuts - before).toBe(3);
    expect(text).not.toContain("state:");
    expect(structured.stdout).toBe(Array.from({ length: 100 }, (_, index) => `${index + 1}\n`).join(""));
  });

  it("a command runs once, also if its start or its response was cut", async () => {
    const before = proxy.cuts;
    for (let bytes = 0; bytes < (LONG ? 6000 : 1500); bytes += LONG ? 100 : 300) {
      proxy.cutAfter(bytes);
      const answer = await call("run_command", { sandbox, command: `echo ${bytes} >> ran; echo ran` });
      expect(answer.text, `cut after ${bytes} bytes`).toContain("ran");
      proxy.cutAfter(Infinity);
    }
    expect(proxy.cuts).toBeGreaterThan(before);
    const lines = (await sh(sandbox, "cat ran")).trim().split("\n");
    expect(new Set(lines).size).toBe(lines.length);
  });

  it("a file is written completely or not at all, an append happens once, and reads are retried", async () => {
    const content = "0123456789abcdef".repeat(4096);
    /** Makes a call and cuts the connection after this number of bytes. `wasCut` is false if the call needed fewer bytes. */
    const callAndCut = async (bytes: number, name: string, args: Record<string, unknown>) => {
      const before = proxy.cuts;
      proxy.cutAfter(bytes);
      const answer = await call(name, { sandbox, ...args });
      proxy.cutAfter(Infinity);
      // The Worker takes an engine for ended that breaks six connections in a row, each within 0.1 s.
      await sleep(150);
      return { ...answer, wasCut: proxy.cuts > before };
    };
    const reached = { write: 0, append: 0, read: 0 };
    for (const bytes of [10, 500, 2000, 30_000, 60_000]) {
      const written = await callAndCut(bytes, "write_file", { path: `f${bytes}`, content });
      const size = (await sh(sandbox, `stat -c %s f${bytes} 2>/dev/null || echo none`)).trim();
      expect([String(content.length), "none"]).toContain(size);
      if (!written.isError) expect(size).toBe(String(content.length));
      else expect(written.text).toContain("The connection to the sandbox broke");
      reached.write += Number(written.wasCut);
    }
    expect(reached.write).toBe(5);
    const acknowledged: string[] = [];
    for (let bytes = 10; bytes < 1600; bytes += LONG ? 25 : 250) {
      const appended = await callAndCut(bytes, "write_file", {
        path: "log",
        content: `${bytes}\n`,
        append: true,
      });
      if (appended.isError) expect(appended.text).toContain("connection to the sandbox broke");
      else acknowledged.push(String(bytes));
      reached.append += Number(appended.wasCut);
    }
    const lines = (await sh(sandbox, "cat log")).trim().split("\n");
    expect(new Set(lines).size).toBe(lines.length);
    expect(lines).toEqual(expect.arrayContaining(acknowledged));
    expect(reached.append).toBeGreaterThanOrEqual(2);
    await call("write_file", { sandbox, path: "whole", content });
    for (const bytes of [10, 500, 2000, 30_000]) {
      const read = await callAndCut(bytes, "read_file", { path: "whole", encoding: "base64" });
      expect(read.isError, read.text).toBe(false);
      expect(atob(read.text.split("\n")[0] ?? "").slice(0, 16)).toBe("0123456789abcdef");
      reached.read += Number(read.wasCut);
    }
    expect(reached.read).toBe(4);
  });

  it("a file is removed once, and the call succeeds even if its response was cut", async () => {
    const remove = (file: string) =>
      fetch(new URL(`/sandboxes/${sandbox}/files/${file}`, url), {
        method: "DELETE",
        headers: { authorization: `Bearer ${TOKEN}` },
      });
    const files = Array.from({ length: 5 }, (_, index) => `f${index}`);
    await sh(sandbox, `touch ${files.join(" ")}`);
    for (const file of files) {
      const before = proxy.cuts;
      proxy.cutRequests(/^DELETE \/sandboxes\/[^/ ]+\/ports\//, 1);
      expect((await remove(file)).status).toBe(204);
      expect(proxy.cuts).toBe(before + 1);
      expect((await remove(file)).status).toBe(404);
    }
  });

  it("code is lost and its result says why, but files remain and the next call works", async () => {
    await call("run_code", { sandbox, code: "x = 1; open('kept', 'w').write('kept')" });
    const answer = call("run_code", {
      sandbox,
      code: "import time; print('begun', flush=True); time.sleep(60); print('end')",
    });
    const run = await until(async () => {
      const { structured } = await call("list_runs", { sandbox });
      return (structured.runs as { id: string; state: string }[]).find(({ state }) => state === "running");
    });
    const readResult = () => call("get_result", { id: run.id, cursor: 0, wait_seconds: 0 });
    await until(async () => (await readResult()).text.includes("begun"));
    proxy.cut();
    const { text } = await answer;
    expect(text).toMatch(/state: lost[^]*connection to the sandbox broke/);
    expect(text).not.toContain("The sandbox stopped during this call");
    expect(await sh(sandbox, "cat kept")).toBe("kept");
    expect((await call("run_code", { sandbox, code: "6 * 7" })).text).toContain("42");
  });

  it("twelve runs with cuts at random moments all end, and nothing is repeated", async () => {
    // A start that is cut repeatedly may fail with an error to retry, and then no command has run.
    for (let index = 0; index < 2; index++) await sh(`many-${index}`, "true");
    const before = proxy.cuts;
    const runs = Array.from({ length: 12 }, (_, index) =>
      call("run_command", {
        sandbox: `many-${index % 2}`,
        session: `s${index}`,
        command: `echo ${index} >> started; for i in {1..20}; do echo $i; sleep 0.1; done`,
        wait_seconds: 0,
      }),
    );
    // On a busy machine, it may take longer until the runs print anything that can be cut.
    for (let round = 0; round < 4 || proxy.cuts === before; round++) {
      await sleep(700);
      proxy.cutAfter((617 * (round + 1)) % 3000);
    }
    proxy.cutAfter(Infinity);
    const expected = Array.from({ length: 20 }, (_, index) => `${index + 1}`).join("\n");
    for (const answer of await Promise.all(runs)) {
      expect(answer.text).not.toMatch(/Internal error|gone/);
      const { text } = await call("get_result", { id: idIn(answer) });
      expect(text).toContain(expected);
      expect(text).not.toContain("state:");
    }
    for (let index = 0; index < 2; index++)
      expect((await sh(`many-${index}`, "sort -u started | wc -l; wc -l < started")).split("\n")).toEqual([
        "6",
        "6",
        "",
      ]);
  });
});
