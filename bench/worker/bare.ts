/**
 * The bare Worker: the SDK's own class on the local platform, without MCP, tokens and runs. The fetch handler takes a BareCall,
 * calls a method of that class or a server in the sandbox, and responds with the result as JSON.
 */
import { Sandbox as BaseSandbox } from "@cloudflare/sandbox";
import type { LocalEnv } from "../../local/platform/engine-client.ts";
import { SANDBOXD_PORT } from "../../container/sandboxd/protocol.ts";
import { withLocalContainer } from "../../local/platform/container.ts";
import type { BareCall } from "../bare-call.ts";

interface Env extends LocalEnv {
  Sandbox: DurableObjectNamespace<Sandbox>;
}

/** How long the server in the sandbox may take to start, in milliseconds, and how often the Worker tries to reach it. */
const START_MS = 20_000;
const RETRY_MS = 20;

export { ContainerProxy } from "@cloudflare/sandbox";

export class Sandbox extends BaseSandbox<Env> {
  constructor(ctx: DurableObjectState<{}>, env: Env) {
    super(withLocalContainer(ctx, env), env);
  }

  async ping(): Promise<string> {
    return this.client.utils.ping();
  }

  async serve(program: string): Promise<void> {
    const start = `spawn(process.execPath, ["-e", ${JSON.stringify(program)}], { detached: true, stdio: "ignore" }).unref()`;
    await this.runCode(`require("node:child_process").${start}`, { language: "javascript" });
    for (let left = START_MS / RETRY_MS; left > 0; left--) {
      if ((await this.ask("/dev/null").catch(() => undefined)) !== undefined) return;
      await scheduler.wait(RETRY_MS);
    }
    throw new Error("the server in the sandbox did not start");
  }

  async ask(path: string, init?: RequestInit): Promise<string> {
    const port = this.ctx.container?.getTcpPort(SANDBOXD_PORT);
    const response = await port?.fetch(`http://sandbox${path}`, init ?? {});
    if (!response?.ok) throw new Error(`the server in the sandbox responded with ${response?.status}`);
    return response.text();
  }
}

async function resultOf(call: BareCall, env: Env): Promise<unknown> {
  const actor = env.Sandbox.getByName(call.sandbox);
  switch (call.method) {
    case "ping":
      return actor.ping();
    case "createCodeContext":
      return (await actor.createCodeContext({ language: "python" })).id;
    case "runCode": {
      const now = new Date();
      const context = {
        id: call.context,
        language: "python",
        cwd: "/workspace",
        createdAt: now,
        lastUsed: now,
      };
      return actor.runCode(call.code, { context });
    }
    case "serve":
      return actor.serve(call.program);
    case "command":
      return actor.ask("/", { method: "POST", body: call.command });
    case "readFile":
      return actor.ask(call.path);
    case "writeFile":
      return actor.ask(call.path, { method: "PUT", body: call.content });
    case "destroy":
      return actor.destroy();
    default:
      throw new Error("no such method");
  }
}

export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    const result = await resultOf(await request.json<BareCall>(), env);
    return Response.json(result ?? null);
  },
};
