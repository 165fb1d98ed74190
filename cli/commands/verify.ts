/** `sandbox-mcp verify`: whether a server does what it should, by using it. */
import { randomBytes } from "node:crypto";
import { type Check, report } from "../checks.ts";
import { dataCommand } from "../command.ts";
import { CommandError } from "../exit.ts";
import { fileAddress } from "./files.ts";
import { type Answer, http, Server, textOf } from "../mcp.ts";
import { Progress } from "../print.ts";
import { PROGRAM, serverAddress, type ServerAddress } from "../server.ts";
import { startLine } from "../places.ts";

/** Words for the server that the user gives. */
const ARGUMENTS = { url: "the argument [url]", token: "the argument [token]" };

export const verify = dataCommand(
  "verify",
  "try a server: health, tokens, a round trip through every tool in a sandbox of its own, latency",
  ["verify", 'verify https://sandbox.example "$TOKEN" --json', "verify --task"],
)
  .argument("[url]", "the server, else SANDBOX_MCP_URL, else the local one")
  .argument("[token]", "its token, else SANDBOX_MCP_TOKEN")
  .option("--task", "hand a small task to the agent, too, which costs some cents")
  .option("--state-dir <path>", "state directory of the local server, else SANDBOX_MCP_STATE_DIR")
  .action(async (url, token, { task, stateDir, json: asJSON }) => {
    const address = serverAddress({ url, token, stateDir }, process.env, ARGUMENTS);
    const trial = new Trial(address);
    const progress = new Progress(`Trying ${address.url}`);
    await trial.run(task === true, (name) => progress.say(name)).finally(() => progress.stop());
    const latency = trial.latency;
    report(trial.checks, asJSON === true, { url: address.url, latency_ms: latency });
  });

/** Uses every tool of a server but the agent. @returns how each came out */
export async function tryServer(address: ServerAddress): Promise<readonly Check[]> {
  const trial = new Trial(address);
  await trial.run(false, () => undefined);
  return trial.checks;
}

/** Calls whose median tells the latency. */
const SAMPLES = 9;

class Trial {
  readonly checks: Check[] = [];
  latency: { min: number; median: number } | undefined;
  readonly #address: ServerAddress;
  readonly #sandbox = `verify-${randomBytes(4).toString("hex")}`;

  constructor(address: ServerAddress) {
    this.#address = address;
  }

  async run(withTask: boolean, say: (name: string) => void): Promise<void> {
    const origin = new URL(this.#address.url).origin;
    const isThere = await this.#check("health", async () => {
      const response = await fetch(new URL("/health", origin));
      const { status } = (await response.json()) as { status?: string };
      if (status !== "healthy") throw new Error(`${response.status} ${status ?? ""}`);
      return status;
    });
    if (!isThere) return;
    await this.#check("no token is refused", () => this.#refused({}));
    await this.#check("a wrong token is refused", () =>
      this.#refused({ authorization: `Bearer ${randomBytes(32).toString("base64url")}` }),
    );
    let server: Server | undefined;
    let tools: string[] = [];
    const connect = async () => {
      server = await Server.connect(this.#address);
      tools = await server.tools();
      return `${tools.length} tools`;
    };
    await this.#check(
      "the token is accepted",
      connect,
      `Use the SERVER_AUTH_TOKEN that this server was given (\`${PROGRAM} token show\` prints that of ${startLine()}), or one of its AUTH_TOKENS.`,
    );
    if (!server) return;
    for (const [name, use] of Object.entries(this.#uses(server))) {
      if (!tools.includes(name)) continue;
      say(name);
      await this.#check(name, use);
    }
    await this.#check("files over HTTP", async () => {
      const path = fileAddress(this.#sandbox, "over http.txt");
      await http(this.#address, path, { method: "PUT", body: "sent\n" });
      return expected(await (await http(this.#address, path)).text(), "sent\n");
    });
    await this.#measure(server);
    if (tools.includes("execute_task")) await this.#task(server, withTask);
    const tried = new Set([...Object.keys(this.#uses(server)), "execute_task", "destroy_sandbox"]);
    for (const name of tools.filter((tool) => !tried.has(tool)))
      this.checks.push({ name, verdict: "skipped", found: "this command does not know it" });
    await this.#check("destroy_sandbox", async () => {
      await server?.call("destroy_sandbox", { sandbox: this.#sandbox, checkpoints: true });
      return "done";
    });
    await server.close();
  }

  /** A use of each tool in the order in which they build on one another. Each returns what it saw, or throws. */
  #uses(server: Server): Record<string, () => Promise<string>> {
    const sandbox = this.#sandbox;
    const call = (name: string, args: Record<string, unknown> = {}): Promise<Answer> =>
      server.call(name, { sandbox, ...args });
    let id = "";
    let terminal = "";
    let checkpoint = "";
    return {
      run_command: async () => {
        const { data } = await call("run_command", { command: "echo $((6 * 7))" });
        id = String(data.id);
        return expected(data.stdout, "42\n");
      },
      run_code: async () =>
        expected((await call("run_code", { code: "6 * 7", language: "javascript" })).data.result, "42"),
      write_file: async () => textOf((await call("write_file", { path: "a.txt", content: "one\n" })).content),
      edit_file: async () => {
        await call("edit_file", { path: "a.txt", edits: [{ old_text: "one", new_text: "two" }] });
        return "replaced";
      },
      read_file: async () => contains(textOf((await call("read_file", { path: "a.txt" })).content), "two"),
      list_files: async () => contains(textOf((await call("list_files")).content), "a.txt"),
      file_link: async () => {
        const { content, data } = await call("file_link", { path: "a.txt" });
        const url = String(data.url ?? /https?:\S+/.exec(textOf(content))?.[0]);
        return expected(await (await fetch(url)).text(), "two\n");
      },
      get_result: async () => expected((await server.call("get_result", { id })).data.state, "succeeded"),
      list_runs: async () => contains(JSON.stringify((await call("list_runs")).data), id),
      send_input: async () => {
        const { data } = await call("run_command", {
          command: "echo up; cat",
          interactive: true,
          session: "terminal",
        });
        terminal = String(data.id);
        await server.call("send_input", { id: terminal, text: "typed\n" });
        return "typed";
      },
      cancel_run: async () =>
        expected((await server.call("cancel_run", { id: terminal })).data.state, "cancelled"),
      list_sandboxes: async () =>
        contains(JSON.stringify((await server.call("list_sandboxes")).data), sandbox),
      configure_sandbox: async () => {
        await call("configure_sandbox", { env: { VERIFY: "1" } });
        return expected((await call("run_command", { command: "echo $VERIFY" })).data.stdout, "1\n");
      },
      expose_port: async () => {
        const { content } = await call("expose_port", { port: 8080, expires_seconds: 60 });
        return textOf(content).split("\n").slice(0, 2).join(" ");
      },
      checkpoint_sandbox: async () => {
        const { data, content } = await call("checkpoint_sandbox", { label: "verify" });
        checkpoint = String(data.id ?? data.checkpoint ?? /\b[0-9a-z]{20,}\b/.exec(textOf(content))?.[0]);
        return checkpoint;
      },
      restore_sandbox: async () => {
        await call("write_file", { path: "a.txt", content: "three\n" });
        await call("restore_sandbox", { checkpoint });
        return contains(textOf((await call("read_file", { path: "a.txt" })).content), "two");
      },
    };
  }

  async #task(server: Server, isWanted: boolean): Promise<void> {
    if (!isWanted) {
      this.checks.push({
        name: "execute_task",
        verdict: "skipped",
        found: "it costs some cents: --task tries it",
      });
      return;
    }
    await this.#check("execute_task", async () => {
      const task = "Answer with the word ready and nothing else. Use no tools.";
      let { data } = await server.call("execute_task", { task, max_turns: 3, timeout_seconds: 120 });
      while (data.state === "running") ({ data } = await server.call("get_result", { id: data.id }));
      return expected(data.state, "succeeded");
    });
  }

  async #measure(server: Server): Promise<void> {
    await this.#check("latency", async () => {
      const times: number[] = [];
      for (let sample = 0; sample < SAMPLES; sample++) {
        const startedAt = performance.now();
        await server.call("run_command", { sandbox: this.#sandbox, command: "true" });
        times.push(performance.now() - startedAt);
      }
      const [min = 0, ...rest] = times
        .sort((left, right) => left - right)
        .map((ms) => Math.round(ms * 10) / 10);
      this.latency = { min, median: rest[Math.floor(SAMPLES / 2) - 1] ?? min };
      return `run_command true: ${this.latency.min} ms at best, ${this.latency.median} ms the median of ${SAMPLES}`;
    });
  }

  async #refused(headers: Record<string, string>): Promise<string> {
    const response = await fetch(this.#address.url, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        accept: "application/json, text/event-stream",
        ...headers,
      },
      body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/list", params: {} }),
    });
    await response.body?.cancel();
    if (response.status !== 401) throw new Error(`answered ${response.status} in place of 401`);
    return "401";
  }

  /**
   * @param remedy what to do where the server denies it
   * @returns whether it passed
   */
  async #check(
    name: string,
    work: () => Promise<string>,
    remedy = "Use a token with more scopes.",
  ): Promise<boolean> {
    const startedAt = performance.now();
    try {
      const found = await work();
      this.checks.push({ name, verdict: "ok", found: found.trim(), ms: performance.now() - startedAt });
      return true;
    } catch (error) {
      const found = error instanceof Error ? error.message : String(error);
      const fix = error instanceof CommandError && error.kind === "denied" ? remedy : undefined;
      this.checks.push({ name, verdict: "failed", found, fix, ms: performance.now() - startedAt });
      return false;
    }
  }
}

function expected(found: unknown, wanted: string): string {
  if (found === wanted) return wanted.trim();
  throw new Error(`expected ${JSON.stringify(wanted)}, got ${JSON.stringify(found)}`);
}

function contains(text: string, wanted: string): string {
  if (text.includes(wanted)) return `has ${wanted}`;
  throw new Error(`expected ${JSON.stringify(wanted)} in ${JSON.stringify(text.slice(0, 200))}`);
}
