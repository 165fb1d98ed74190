/**
 * The baseline: the SDK's own class on the local platform and a fetch handler that calls one of its methods, without MCP,
 * tokens and runs. A request is `{sandbox, method, ...}`; the response is the SDK's value as JSON.
 */
import { Sandbox as BaseSandbox } from "@cloudflare/sandbox";
import type { LocalEnv } from "../../local/platform/client.ts";
import { withLocalContainer } from "../../local/platform/container.ts";
import type { BareCall } from "../bare-call.ts";

interface Env extends LocalEnv {
  Sandbox: DurableObjectNamespace<Sandbox>;
}

export { ContainerProxy } from "@cloudflare/sandbox";

export class Sandbox extends BaseSandbox<Env> {
  constructor(ctx: DurableObjectState<{}>, env: Env) {
    super(withLocalContainer(ctx, env), env);
  }
}

async function answer(call: BareCall, env: Env): Promise<unknown> {
  const actor = env.Sandbox.getByName(call.sandbox);
  switch (call.method) {
    case "exec":
      return actor.exec(call.command);
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
    case "readFile":
      return actor.readFile(call.path);
    case "writeFile":
      return actor.writeFile(call.path, call.content);
    case "destroy":
      return actor.destroy();
    default:
      throw new Error("no such method");
  }
}

export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    const result = await answer(await request.json<BareCall>(), env);
    return Response.json(result ?? null);
  },
};
