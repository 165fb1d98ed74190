/** Figures of single calls in a sandbox that is ready. */
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import type { Figure } from "../figure.ts";
import { interleave, latencyRows } from "../measure.ts";

/** One call in a kernel that is already running. */
export const runCode: Figure = {
  name: "run_code",
  baseline: "runCode of the SDK in a context that exists already",
  async measure({ ours, bare }, { count }) {
    const sandbox = "bench-code";
    const context = String(await bare.call({ sandbox, method: "createCodeContext" }));
    const times = await interleave(
      () => ours.tool("run_code", { sandbox, code: "1 + 1" }),
      () => bare.call({ sandbox, method: "runCode", context, code: "1 + 1" }),
      { pairs: count(1000), warmup: count(200) },
    );
    return latencyRows("run_code warm", times);
  },
};

/** The shortest command in an existing shell session. */
export const runCommand: Figure = {
  name: "run_command",
  baseline: "a minimal Node server in the same sandbox, which starts bash -c true",
  async measure({ ours, bare }, { count }) {
    const sandbox = "bench-command";
    await bare.serve(sandbox);
    const times = await interleave(
      () => ours.tool("run_command", { sandbox, command: "true" }),
      () => bare.call({ sandbox, method: "command", command: "true" }),
      { pairs: count(1000), warmup: count(100) },
    );
    return latencyRows("run_command true", times);
  },
};

/** The call of the figure run_code, made by MCP's official client. The difference from that figure is the time of the client. */
export const client: Figure = {
  name: "client",
  baseline: "our own run_code by plain HTTP, the way the other figures call the server",
  async measure({ ours }, { count }) {
    const mcp = new Client({ name: "bench", version: "0" });
    await mcp.connect(
      new StreamableHTTPClientTransport(new URL(ours.url), {
        requestInit: { headers: { authorization: `Bearer ${ours.token}` } },
      }),
    );
    const args = { sandbox: "bench-code", code: "1 + 1" };
    const times = await interleave(
      () => mcp.callTool({ name: "run_code", arguments: args }),
      () => ours.tool("run_code", args),
      { pairs: count(300), warmup: count(100) },
    );
    await mcp.close();
    return latencyRows("run_code by MCP's official client", times);
  },
};

/** The result of a run that has ended. The server reads it without a call to the sandbox. */
export const getResult: Figure = {
  name: "get_result",
  baseline: "a minimal Node server in the same sandbox, which runs the command again",
  async measure({ ours, bare }, { count }) {
    const sandbox = "bench-result";
    await bare.serve(sandbox);
    await ours.tool("run_command", { sandbox, command: "echo done" });
    const id = /^bench-result\.\w+/m.exec(await ours.tool("list_runs", { sandbox }))?.[0];
    const times = await interleave(
      () => ours.tool("get_result", { id }),
      () => bare.call({ sandbox, method: "command", command: "echo done" }),
      { pairs: count(400), warmup: count(100) },
    );
    return latencyRows("get_result", times);
  },
};
