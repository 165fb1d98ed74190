import { randomBytes } from "node:crypto";
import { request as requestHTTP } from "node:http";
import { request as requestHTTPS } from "node:https";
import { text as bodyOf } from "node:stream/consumers";
import { type Check, report } from "../checks.ts";
import { dataCommand, stateOption, tokenOption, urlOption } from "../define-command.ts";
import { CommandError } from "../exit.ts";
import { fileAddress } from "./files.ts";
import { textOf } from "../../client/connection.ts";
import { type Answer, http, Server } from "../server-calls.ts";
import { postRPC } from "../ready.ts";
import { Progress } from "../print.ts";
import { serverAddress, type ServerAddress } from "../server-address.ts";
import { LANGUAGES, TRAITS } from "../../src/shared/languages.ts";
import { TOOL_NAMES as NAMES, type ToolName } from "../../src/shared/tool-sets.ts";
import { messageOf } from "../../src/shared/text.ts";
import { VERIFY } from "./texts.ts";

const TOOL_NAMES: ReadonlySet<string> = NAMES;

/** How errors name the URL and the token. Other commands take both as options. */
const ARGUMENTS = { url: "the argument [url]", token: "the argument [token]" };

export const verify = dataCommand(
  "verify",
  "test a server: health, tokens, every tool in a separate sandbox, and latency",
  ["verify", 'verify https://sandbox.example "$TOKEN" --json', "verify --task"],
)
  .argument("[url]", "the server's address (default: SANDBOX_MCP_URL, else the local server)")
  .argument("[token]", "the token (default: SANDBOX_MCP_TOKEN)")
  .option("--task", "also run a small task, which costs a few cents")
  .addOption(stateOption())
  // Users may know these options from other commands. The help does not show them, because the arguments are shorter.
  .addOption(urlOption().hideHelp())
  .addOption(tokenOption().hideHelp())
  .action(async (url, token, { task, json: asJSON, ...options }) => {
    const serverOptions = { ...options, ...(url && { url }), ...(token && { token }) };
    const address = serverAddress(serverOptions, process.env, ARGUMENTS);
    const trial = new Verification(address);
    const progress = new Progress(`Trying ${address.url}`);
    await trial.run(task === true, (name) => progress.status(name)).finally(() => progress.stop());
    report(trial.checks, asJSON === true, { url: address.url, latency_ms: trial.latency });
  });

/** Tries every tool of a server except `execute_task`. @returns the results */
export async function tryServer(address: ServerAddress): Promise<readonly Check[]> {
  const trial = new Verification(address);
  await trial.run(false, () => undefined);
  return trial.checks;
}

/** The number of calls for the median latency. */
const SAMPLES = 9;

/** The port of the program for `expose_port`. */
const PORT = 8080;

/** A check of a tool, or of another part of the server. */
interface ToolCheck {
  /** Other tools that the check calls. */
  needs?: readonly string[];
  /** @returns what was found, for the report @throws Error if the check fails */
  use(): Promise<string>;
}

/** Checks of all tools except the two that are checked last. It also has checks of other parts of the server. */
type Uses = Record<Exclude<ToolName, "execute_task" | "destroy_sandbox">, ToolCheck> &
  Record<string, ToolCheck>;

const withNeeds = (needs: readonly string[], use: () => Promise<string>): ToolCheck => ({ needs, use });

/**
 * The result of a check that neither passed nor failed, for example because this connection lacks a tool. `verdict` is the
 * result to report.
 */
class Inconclusive extends Error {
  readonly verdict: "skipped" | "warning";

  constructor(message: string, verdict: "skipped" | "warning" = "skipped") {
    super(message);
    this.verdict = verdict;
  }
}

class Verification {
  readonly checks: Check[] = [];
  latency: { min: number; median: number } | undefined;
  readonly #address: ServerAddress;
  readonly #sandbox = `verify-${randomBytes(4).toString("hex")}`;

  constructor(address: ServerAddress) {
    this.#address = address;
  }

  async run(withTask: boolean, say: (name: string) => void): Promise<void> {
    const isHealthy = await this.#check("health", async () => {
      const { status } = (await (await http(this.#address, "/health")).json()) as { status?: string };
      if (status !== "healthy")
        throw new Error(`${this.#address.url} reports status ${JSON.stringify(status)}`);
      return status;
    });
    if (!isHealthy) return;
    await this.#check("a request without a token is refused", () => this.#expectRefusal({}));
    await this.#check("a wrong token is refused", () =>
      this.#expectRefusal({ authorization: `Bearer ${randomBytes(32).toString("base64url")}` }),
    );
    let connection: Connection | undefined;
    await this.#check(
      "the token is accepted",
      async () => {
        connection = await Connection.open(this.#address);
        return `${connection.listed.length} tools`;
      },
      VERIFY.tokenRemedy,
    );
    if (!connection) return;
    try {
      await this.#tryAll(connection, withTask, say);
    } finally {
      await this.#cleanUp(connection);
      await connection.close();
    }
  }

  async #tryAll(connection: Connection, withTask: boolean, say: (name: string) => void): Promise<void> {
    const uses = this.#toolChecks(connection);
    for (const [name, { needs = [], use }] of Object.entries(uses)) {
      say(name);
      await this.#check(name, async () => {
        if (TOOL_NAMES.has(name)) await connection.mustHave(name, this.#sandbox);
        for (const need of needs)
          if (!connection.allowed.includes(need)) throw new Inconclusive(VERIFY.needs(need));
        return use();
      });
    }
    await this.#check("execute_task", () => this.#tryTask(connection, withTask));
    for (const name of connection.listed.filter((tool) => !TOOL_NAMES.has(tool)))
      this.checks.push({ name, verdict: "skipped", found: VERIFY.unknownTool });
  }

  /** Checks of the tools, in the order in which they depend on each other. */
  #toolChecks(connection: Connection): Uses {
    const sandbox = this.#sandbox;
    const call = (name: string, args: Record<string, unknown> = {}): Promise<Answer> =>
      connection.call(name, { sandbox, ...args });
    // Some checks need the result of another check. If that check was skipped, `ensureRun` and `ensureText` make the result.
    let id = "";
    let text = "";
    let checkpoint = "";
    const run = async () => {
      const { data } = await call("run_command", { command: "echo $((6 * 7))" });
      id = String(data.id);
      return expectEqual(data.stdout, "42\n");
    };
    const write = async () => {
      const { content } = await call("write_file", { path: "a.txt", content: "one\n" });
      text = "one\n";
      return textOf(content);
    };
    const ensureRun = async () => void (id === "" && (await run()));
    const ensureText = async () => void (text === "" && (await write()));
    const makeCheckpoint = async () => {
      await ensureText();
      const { data, content } = await call("checkpoint_sandbox", { label: "verify" });
      checkpoint = String(data.id ?? data.checkpoint ?? /\b[0-9a-z]{20,}\b/.exec(textOf(content))?.[0]);
      return checkpoint;
    };
    const calculate = async (language: string) =>
      expectEqual((await call("run_code", { code: "6 * 7", language })).data.result, "42");
    return {
      run_command: { use: run },
      // Every sandbox has Node. The programs of other languages may be missing.
      run_code: { use: () => calculate("javascript") },
      ...Object.fromEntries(
        LANGUAGES.filter((language) => language !== "javascript").map((language) => [
          `run_code in ${TRAITS[language].title}`,
          withNeeds(["run_code"], () =>
            calculate(language).catch((error: unknown) => {
              const { message } = error as Error;
              throw /no \w+ interpreter|spawn \w+ E(?:NOENT|ACCES)/.test(message)
                ? new Inconclusive(message, "warning")
                : error;
            }),
          ),
        ]),
      ),
      write_file: { use: write },
      edit_file: withNeeds(["write_file"], async () => {
        await write();
        await call("edit_file", { path: "a.txt", edits: [{ old_text: "one", new_text: "two" }] });
        text = "two\n";
        return "replaced";
      }),
      read_file: withNeeds(["write_file"], async () => {
        await ensureText();
        return expectText(textOf((await call("read_file", { path: "a.txt" })).content), text.trim());
      }),
      list_files: withNeeds(["write_file"], async () => {
        await ensureText();
        return expectText(textOf((await call("list_files")).content), "a.txt");
      }),
      file_link: withNeeds(["write_file"], async () => {
        await ensureText();
        const { content, data } = await call("file_link", { path: "a.txt" });
        const url = String(data.url ?? /https?:\S+/.exec(textOf(content))?.[0]);
        return expectEqual(await (await fetch(url)).text(), text);
      }),
      get_result: withNeeds(["run_command"], async () => {
        await ensureRun();
        return expectEqual((await connection.call("get_result", { id })).data.state, "succeeded");
      }),
      list_runs: withNeeds(["run_command"], async () => {
        await ensureRun();
        return expectText(JSON.stringify((await call("list_runs")).data), id);
      }),
      send_input: withNeeds(["run_command"], async () => {
        const command = { command: "echo up; cat", interactive: true, session: "terminal" };
        const { data } = await call("run_command", command);
        await connection.call("send_input", { id: data.id, text: "typed\n" });
        return "typed";
      }),
      cancel_run: withNeeds(["run_command"], async () => {
        const command = { command: "sleep 300", session: "cancelled", wait_seconds: 0 };
        const { data } = await call("run_command", command);
        const ended = await connection.call("cancel_run", { id: data.id });
        return expectEqual(ended.data.state, "cancelled");
      }),
      list_sandboxes: {
        use: async () => {
          const listed = JSON.stringify((await connection.call("list_sandboxes")).data);
          return id === "" && text === "" ? "works" : expectText(listed, sandbox);
        },
      },
      configure_sandbox: withNeeds(["run_command"], async () => {
        await call("configure_sandbox", { env: { VERIFY: "1" } });
        return expectEqual((await call("run_command", { command: "echo $VERIFY" })).data.stdout, "1\n");
      }),
      expose_port: withNeeds(["run_command"], async () => {
        await call("run_command", { command: SERVE, session: "server" });
        const { data, content } = await call("expose_port", { port: PORT, expires_seconds: 60 });
        const url = String(data.url ?? /https?:\S+/.exec(textOf(content))?.[0]);
        expectEqual(await fetchPreview(url), "served\n");
        return `${new URL(url).host} responds from here`;
      }),
      checkpoint_sandbox: withNeeds(["write_file"], makeCheckpoint),
      restore_sandbox: withNeeds(["checkpoint_sandbox", "write_file", "read_file"], async () => {
        if (checkpoint === "") await makeCheckpoint();
        await call("write_file", { path: "a.txt", content: "changed\n" });
        await call("restore_sandbox", { checkpoint });
        return expectText(textOf((await call("read_file", { path: "a.txt" })).content), text.trim());
      }),
      "files over HTTP": {
        use: async () => {
          const path = fileAddress(this.#sandbox, "over http.txt");
          await http(this.#address, path, { method: "PUT", body: "sent\n" });
          return expectEqual(await (await http(this.#address, path)).text(), "sent\n");
        },
      },
      latency: withNeeds(["run_command"], () => this.#measure(connection)),
    };
  }

  async #tryTask(connection: Connection, isWanted: boolean): Promise<string> {
    await connection.mustHave("execute_task", this.#sandbox);
    if (!isWanted) throw new Inconclusive(VERIFY.taskCosts);
    const task = VERIFY.task;
    let { data } = await connection.call("execute_task", { task, max_turns: 3, timeout_seconds: 120 });
    while (data.state === "running") ({ data } = await connection.call("get_result", { id: data.id }));
    return expectEqual(data.state, "succeeded");
  }

  /** Destroys the sandbox, even if `?tools=` of the address leaves `destroy_sandbox` out. */
  async #cleanUp(connection: Connection): Promise<void> {
    await this.#check("destroy_sandbox", async () => {
      const isAllowed = connection.allowed.includes("destroy_sandbox");
      if (isAllowed) await connection.call("destroy_sandbox", { sandbox: this.#sandbox, checkpoints: true });
      await connection.mustHave("destroy_sandbox", this.#sandbox).catch((error: unknown) => {
        if (!(error instanceof Inconclusive)) throw error;
        throw new Inconclusive(VERIFY.leftBehind(error.message, this.#sandbox, isAllowed));
      });
      return "done";
    });
  }

  async #measure(connection: Connection): Promise<string> {
    const times: number[] = [];
    for (let sample = 0; sample < SAMPLES; sample++) {
      const startedAt = performance.now();
      await connection.call("run_command", { sandbox: this.#sandbox, command: "true" });
      times.push(performance.now() - startedAt);
    }
    const [min = 0, ...rest] = times
      .sort((left, right) => left - right)
      .map((ms) => Math.round(ms * 10) / 10);
    this.latency = { min, median: rest[Math.floor(SAMPLES / 2) - 1] ?? min };
    return `the command "true" takes ${this.latency.min} ms at best; the median of ${SAMPLES} is ${this.latency.median} ms`;
  }

  async #expectRefusal(headers: Record<string, string>): Promise<string> {
    const response = await postRPC(this.#address.url, "tools/list", headers);
    await response.body?.cancel();
    if (response.status !== 401) throw new Error(VERIFY.wrongStatus(response.status, 401));
    return "401";
  }

  /** @param remedy given if the token may be wrong. Without it, a refusal means that the token's scopes do not allow the check */
  async #check(name: string, work: () => Promise<string>, remedy?: string): Promise<boolean> {
    const startedAt = performance.now();
    try {
      const found = await work();
      this.checks.push({ name, verdict: "ok", found: found.trim(), ms: performance.now() - startedAt });
      return true;
    } catch (error) {
      const found = messageOf(error);
      const isDenied = error instanceof CommandError && error.kind === "denied";
      if (error instanceof Inconclusive) this.checks.push({ name, verdict: error.verdict, found });
      else if (isDenied && remedy === undefined)
        this.checks.push({ name, verdict: "skipped", found: VERIFY.notAllowed(found) });
      else {
        const fix = isDenied ? remedy : undefined;
        this.checks.push({ name, verdict: "failed", found, fix, ms: performance.now() - startedAt });
      }
      return false;
    }
  }
}

class Connection {
  /** The tools listed at the given address. */
  readonly listed: readonly string[];
  /** The tools listed without `?tools=`. */
  readonly allowed: readonly string[];
  readonly #server: Server;
  readonly #whole: Server;

  private constructor(
    [server, listed]: readonly [Server, readonly string[]],
    [whole, allowed]: readonly [Server, readonly string[]],
  ) {
    [this.#server, this.listed, this.#whole, this.allowed] = [server, listed, whole, allowed];
  }

  static async open(address: ServerAddress): Promise<Connection> {
    const open = async (url: string) => {
      const server = await Server.connect({ ...address, url });
      return [server, await server.tools()] as const;
    };
    const connection = await open(address.url);
    const url = new URL(address.url);
    if (!url.searchParams.has("tools")) return new Connection(connection, connection);
    url.searchParams.delete("tools");
    return new Connection(connection, await open(url.href));
  }

  /** Calls a tool, even one that the address leaves out but another check needs. */
  call(name: string, args: Record<string, unknown> = {}): Promise<Answer> {
    return (this.listed.includes(name) ? this.#server : this.#whole).call(name, args);
  }

  /** @throws {Inconclusive} if the tool is not listed; the message says why */
  async mustHave(name: string, sandbox: string): Promise<void> {
    if (this.listed.includes(name)) return;
    if (this.allowed.includes(name)) throw new Inconclusive(VERIFY.leftOut);
    // The server refuses calls of tools that it does not list. It checks the scope first, so the error says if that is missing.
    const refused = await this.#whole.call(name, { sandbox }).catch((error: unknown) => error);
    if (refused instanceof CommandError && refused.kind === "denied")
      throw new Inconclusive(VERIFY.notAllowed(refused.message));
    throw new Inconclusive(VERIFY.unlisted);
  }

  async close(): Promise<void> {
    await this.#server.close();
    if (this.#whole !== this.#server) await this.#whole.close();
  }
}

/** Starts a program that listens, and waits for it. Every sandbox has Node, but not always Python. */
const SERVE = `node -e 'require("http").createServer((_, response) => response.end("served\\n")).listen(${PORT})' >/dev/null 2>&1 &
for _ in $(seq 200); do (exec 3<>/dev/tcp/127.0.0.1/${PORT}) 2>/dev/null && exit; sleep 0.1; done; exit 1`;

/** A preview's response to this machine. @throws Error naming the host if nothing responds */
function fetchPreview(url: string): Promise<string> {
  const { protocol, hostname, host, port, pathname: path } = new URL(url);
  const request = protocol === "https:" ? requestHTTPS : requestHTTP;
  // Browsers resolve every name below localhost to this machine, but some systems' resolvers do not.
  const options = hostname.endsWith(".localhost")
    ? { hostname: "127.0.0.1", port: port || 80, headers: { host } }
    : { hostname, port };
  return new Promise((resolve, reject) => {
    const fail = (error: Error) => reject(new Error(VERIFY.previewFailed(url, error)));
    request({ ...options, protocol, path, timeout: PREVIEW_MS }, (response) => {
      bodyOf(response).then(resolve, fail);
    })
      .on("timeout", function (this: ReturnType<typeof request>) {
        this.destroy(new Error(VERIFY.previewSilent(PREVIEW_MS)));
      })
      .on("error", fail)
      .end();
  });
}

/** The time limit of a preview's response, in milliseconds. */
const PREVIEW_MS = 20_000;

function expectEqual(found: unknown, wanted: string): string {
  if (found === wanted) return wanted.trim();
  throw new Error(VERIFY.expected(found, wanted));
}

function expectText(text: string, wanted: string): string {
  if (text.includes(wanted)) return `has ${wanted}`;
  throw new Error(VERIFY.missing(text, wanted));
}
