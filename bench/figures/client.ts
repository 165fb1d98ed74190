import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import type { Figure } from "../figure.ts";
import { interleave, latencyRows } from "../measure.ts";

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
