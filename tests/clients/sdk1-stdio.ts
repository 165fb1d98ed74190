/** Separate from sdk1.ts, because workerd cannot start processes. */
export { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
