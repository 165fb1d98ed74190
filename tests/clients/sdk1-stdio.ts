/** Separate from sdk1.ts, because workerd starts no processes. */
export { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
