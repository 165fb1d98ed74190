/** Requests from inside a sandbox to anthropic.internal, which only this server serves. */
import { env } from "cloudflare:workers";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ModelUse } from "../../../src/actors/model-use.ts";
import { IN_FLIGHT_MS, MAX_IN_FLIGHT, TaskBudgets } from "../../../src/tasks/budget.ts";
import { callModel } from "../../../src/container/model-egress.ts";
import type { Env } from "../../../src/shared/config.ts";
import { actorOf, encode, runInActor, owner, sh, until, sleep } from "../support.ts";

/** The status and body of a request from a sandbox. */
async function ask(sandbox: string, path: string, options = ""): Promise<[status: string, body: string]> {
  const output = await sh(
    sandbox,
    `curl -sS -w '\\n%{http_code}' ${options} http://anthropic.internal${path}`,
  );
  const at = output.lastIndexOf("\n");
  return [output.slice(at + 1), output.slice(0, at)];
}

/** Starts a task. Returns its id, and its placeholder once its first command has begun. */
async function startTask(sandbox: string, task = "[[work]] x"): Promise<{ id: unknown; key: string }> {
  // An earlier task of this sandbox may have left these files.
  await sh(sandbox, "rm -f /workspace/begun /workspace/go-on");
  const { structured } = await owner.call("execute_task", { task, sandbox, wait_seconds: 0 });
  await until(async () => (await sh(sandbox, "cat /workspace/begun 2>/dev/null || true")) !== "");
  const keys = await sh(
    sandbox,
    "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | sed -n 's/^ANTHROPIC_API_KEY=//p' | sort -u",
  );
  return { id: structured.id, key: keys.trim() };
}

/** How many requests to the model are under way. */
function countModelCalls(sandbox: string): Promise<number> {
  return runInActor(
    sandbox,
    (_actor, { storage }) => storage.sql.exec("SELECT * FROM model_calls").toArray().length,
  );
}

/** The arguments of curl for a request with this key. */
function curlArguments(key: string, message: object): string {
  return `-X POST -H 'x-api-key: ${key}' -H 'content-type: application/json' -d '${JSON.stringify(message)}'`;
}

const POST = "-X POST -H 'content-type: application/json' -d '{}'";

describe("anthropic.internal", () => {
  it("is served by this server, and refuses requests without a task", async () => {
    const [status, body] = await ask("plain", "/v1/messages", POST);
    expect(status).toBe("403");
    expect(body).toContain("sandbox-mcp: No running task of this sandbox has this key.");
    for (const header of ["x-api-key: test-model-key", "authorization: Bearer test-model-key", "x-api-key;"])
      expect((await ask("plain", "/v1/messages", `${POST} -H '${header}'`))[0]).toBe("403");
  });

  it("accepts only its own task's placeholder, only for messages, and only while the task runs", async () => {
    const { id, key } = await startTask("egress");
    const header = `-H 'x-api-key: ${key}'`;
    const messages = [{ role: "user", content: "hi" }];
    const real = curlArguments(key, { model: "m", max_tokens: 5, messages });
    expect(await ask("egress", "/v1/messages", real)).toEqual([
      "200",
      expect.stringContaining('"text":"ok"'),
    ]);
    expect((await ask("egress", "/v1/messages?beta=true", real))[0]).toBe("200");
    expect((await ask("egress", "/v1/messages/count_tokens", real))[0]).toBe("200");
    await until(async () => (await countModelCalls("egress")) === 0);
    for (const path of ["/v1/files", "/v1/messages/batches", "/", "/v1/messages/../organizations"])
      expect((await ask("egress", path, `--path-as-is ${real}`))[0], path).toBe("403");
    expect((await ask("egress", "/v1/messages", header))[0]).toBe("403");
    expect((await ask("plain", "/v1/messages", real))[0]).toBe("403");
    expect((await ask("egress", "/v1/messages", real.replace("placeholder-", "placeholder-x")))[0]).toBe(
      "403",
    );
    const source = { type: "url", url: "https://elsewhere.example.com/?c2VjcmV0" };
    const fetching = curlArguments(key, {
      model: "m",
      messages: [{ role: "user", content: [{ type: "image", source }] }],
    });
    expect((await ask("egress", "/v1/messages", fetching))[0]).toBe("200");
    await owner.call("configure_sandbox", { sandbox: "egress", internet: "none" });
    expect(await ask("egress", "/v1/messages", fetching)).toEqual([
      "403",
      expect.stringContaining("may not connect to a source by URL"),
    ]);
    expect((await ask("egress", "/v1/messages", real))[0]).toBe("200");
    await sh("egress", "touch /workspace/go-on");
    expect((await owner.call("get_result", { id })).text).toContain("state: succeeded");
    expect((await ask("egress", "/v1/messages", real))[0]).toBe("403");
    // Nor is the placeholder valid during the next task of the sandbox.
    const next = await startTask("egress");
    expect((await ask("egress", "/v1/messages", real))[0]).toBe("403");
    await owner.call("cancel_run", { id: next.id });
  });

  it("limits a task's simultaneous requests, and tells the next one to retry", async () => {
    const sandbox = "egress";
    const { id, key } = await startTask(sandbox, "[[work]] [real]");
    const tools = [{ name: "Bash" }];
    const message = { stream: true, tools, messages: [{ role: "user", content: "[[silent]] x" }] };
    const hold = `for i in {1..${MAX_IN_FLIGHT}}; do
      curl -sN ${curlArguments(key, message)} http://anthropic.internal/v1/messages > /tmp/held.$i & done; wait`;
    const holding = await owner.call("run_command", {
      sandbox,
      command: hold,
      session: "h",
      wait_seconds: 0,
    });
    const startedCount = () =>
      sh(sandbox, "cat /tmp/held.* 2>/dev/null | grep -c '^event: message_start' || true");
    await until(async () => Number(await startedCount()) === MAX_IN_FLIGHT);
    const real = curlArguments(key, { messages: [{ role: "user", content: "hi" }] });
    const busy = async () => {
      const [status, response] = await ask(sandbox, "/v1/messages", `-i ${real}`);
      expect(status).toBe("429");
      expect(response).toMatch(/^retry-after: \d+\r$/im);
      expect(response).not.toMatch(/^x-should-retry/im);
      expect(JSON.parse(response.slice(response.indexOf("{")))).toEqual({
        type: "error",
        error: { type: "rate_limit_error", message: expect.stringContaining("under way") },
      });
    };
    await busy();
    // Requests count until their Worker reports their end.
    await runInActor(sandbox, (_actor, { storage }) => {
      storage.sql.exec("UPDATE model_calls SET began_at = began_at - ?", 2 * IN_FLIGHT_MS);
    });
    await until(() =>
      runInActor(sandbox, (_actor, { storage }) => {
        const oldest = storage.sql.exec<{ at: number }>("SELECT min(began_at) AS at FROM model_calls").one();
        return oldest.at > Date.now() - IN_FLIGHT_MS;
      }),
    );
    await busy();
    // The agent gets the same error. It retries until the pending requests have disconnected.
    await sh(sandbox, "touch /workspace/go-on");
    await sleep(1000);
    await busy();
    await owner.call("cancel_run", { id: holding.structured.id });
    await until(async () => (await ask(sandbox, "/v1/messages", real))[0] === "200");
    const { text } = await owner.call("get_result", { id });
    expect(text).toContain("state: succeeded");
  });
});

it("requests that fail because the account does not respond do not count as requests under way", async () => {
  await runInActor("egress-alone", async (_actor, { storage }) => {
    const budgets = new TaskBudgets(storage.sql);
    const key = await budgets.open("a", 1000);
    const spendModelTokens = async () => Promise.reject(new Error("the account is not there"));
    const host = {
      budgets,
      runs: { isRunning: () => true },
      account: { account: () => ({ spendModelTokens }) },
    };
    const modelUse = new ModelUse(host as unknown as ConstructorParameters<typeof ModelUse>[0]);
    for (let count = 0; count <= MAX_IN_FLIGHT; count++)
      await expect(modelUse.admitModelCall(key)).rejects.toThrow("the account is not there");
    expect(budgets.spending("a")).toMatchObject({ tokens: 0, upstream: undefined });
  });
});

describe("a request of a running task", () => {
  const sandbox = "egress";
  let task: Awaited<ReturnType<typeof startTask>>;
  let containerID: string;
  beforeAll(async () => {
    task = await startTask(sandbox);
    containerID = (await actorOf(sandbox)).id.toString();
  });
  afterAll(() => owner.call("cancel_run", { id: task.id }));

  /** The tokens that the task is charged for requests with its placeholder. */
  async function chargedTokens(work: () => Promise<unknown>): Promise<number> {
    const spent = () =>
      runInActor(
        sandbox,
        (_actor, { storage }) =>
          storage.sql.exec<{ tokens: number }>("SELECT tokens FROM task_budgets").one().tokens,
      );
    const before = await spent();
    await work();
    await until(async () => (await spent()) > before);
    return (await spent()) - before;
  }

  /** Sends a request as the sandbox's proxy does. */
  function send(path: string, body: BodyInit, length: number | undefined, signal?: AbortSignal) {
    const headers = {
      "x-api-key": task.key,
      "content-type": "application/json",
      ...(length !== undefined && { "content-length": `${length}` }),
    };
    const request = new Request(`http://anthropic.internal${path}`, {
      method: "POST",
      headers,
      body,
      signal: signal ?? null,
    });
    return callModel(request, env as Env, containerID);
  }

  it("that its agent ends in the middle of a stream is charged for all tokens that it requested", async () => {
    const messages = [{ role: "user", content: "[[silent]] x" }];
    const message = { max_tokens: 7000, stream: true, messages, tools: [{ name: "Bash" }] };
    const request = curlArguments(task.key, message);
    const tokens = await chargedTokens(() =>
      sh(sandbox, `curl -sN -m 1 ${request} http://anthropic.internal/v1/messages || true`),
    );
    expect(tokens).toBe(7010);
  });

  it("that its agent ends before the response begins is charged for all tokens that it requested", async () => {
    const messages = [{ role: "user", content: "[[hang]] x" }];
    const message = { max_tokens: 7000, messages, tools: [{ name: "Bash" }] };
    const request = curlArguments(task.key, message);
    const tokens = await chargedTokens(() =>
      sh(sandbox, `curl -sN -m 1 ${request} http://anthropic.internal/v1/messages || true`),
    );
    expect(tokens).toBe(7000 + Math.ceil(JSON.stringify(message).length / 3));
  });

  it("with compaction is charged for each time that the API may have read the longest context", async () => {
    const messages = [{ role: "user", content: "[[hang]] x" }];
    const context_management = { edits: [{ type: "compact_20260112" }] };
    const message = { max_tokens: 7000, context_management, messages, tools: [{ name: "Bash" }] };
    const request = curlArguments(task.key, message);
    await runInActor(sandbox, (_actor, { storage }) => {
      storage.sql.exec("UPDATE task_budgets SET tokens = 0");
    });
    const tokens = await chargedTokens(() =>
      sh(sandbox, `curl -sN -m 1 ${request} http://anthropic.internal/v1/messages || true`),
    );
    expect(tokens).toBe(10 * 1_007_000);
    await runInActor(sandbox, (_actor, { storage }) => {
      storage.sql.exec("UPDATE task_budgets SET tokens = 0");
    });
  });

  it.each([
    ["that its agent sends in pieces and ends before the response begins", 3000, false],
    // Two bodies of this size exceed the rate limit, which delays the end of the second one.
    ["that its agent ends while the rate limit delays it", 33_000_000, true],
  ])("%s is also charged for the size of the request", async (_when, size, isAnnounced) => {
    const messages = [{ role: "user", content: `[[hang]] ${"x".repeat(size)}` }];
    const bytes = encode(JSON.stringify({ max_tokens: 7000, messages, tools: [{ name: "Bash" }] }));
    const length = isAnnounced ? bytes.length : undefined;
    const tokens = await chargedTokens(async () => {
      const agent = new AbortController();
      expect((await send("/v1/messages/count_tokens", bytes, length))?.status).toBe(200);
      const half = bytes.length / 2;
      const pieces = [bytes.subarray(half), bytes.subarray(0, half)];
      let isSent = false;
      const body = new ReadableStream<Uint8Array>({
        pull(controller) {
          const piece = pieces.pop();
          if (piece) controller.enqueue(piece);
          else controller.close();
          // The API knows an announced length, so it need not wait for the end.
          isSent = isAnnounced ? pieces.length === 0 : !piece;
        },
      });
      const response = send("/v1/messages", body, length, agent.signal);
      await until(() => isSent);
      agent.abort();
      expect((await response)?.status).toBe(502);
    });
    expect(tokens).toBe(7000 + Math.ceil(bytes.length / 3));
  });

  it("that is larger than the API accepts is refused, with or without a Content-Length", async () => {
    // The requests of the other tests have used up the task's tokens.
    await runInActor(sandbox, (_actor, { storage }) => {
      storage.sql.exec("UPDATE task_budgets SET tokens = 0");
    });
    const large = encode(`{"messages":["${"x".repeat(34_000_000)}"]}`);
    // No stream can have the last length. Such a request counted as under way until the server was restarted.
    for (const length of [undefined, large.length, 2 ** 53]) {
      const response = await send("/v1/messages", new Blob([large]).stream(), length);
      expect(response?.status).toBe(413);
      expect(await response?.json()).toMatchObject({ error: { type: "request_too_large" } });
    }
    await until(async () => (await countModelCalls(sandbox)) === 0);
  });

  it("gets at most 256 KiB of an error", async () => {
    const messages = [{ role: "user", content: "[[long-error]] x" }];
    const body = encode(JSON.stringify({ max_tokens: 1, messages, tools: [{ name: "Bash" }] }));
    const response = await send("/v1/messages", body, body.length);
    expect(response?.status).toBe(400);
    expect(await response?.text()).toBe("");
  });
});
