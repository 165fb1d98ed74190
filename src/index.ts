/** The Worker: its `fetch` handler and its Durable Objects. */
import { resourceScopes } from "./resources/read.ts";
import { createApp } from "./server/app.ts";
import { createMCPServer } from "./server/mcp.ts";
import { requiredScopes } from "./tools/index.ts";

export { ContainerProxy } from "@cloudflare/sandbox";
export { Attempts } from "./actors/attempts.ts";
export { Account } from "./actors/account.ts";
export { Sandbox } from "./actors/sandbox.ts";

export default createApp({ createMCPServer, requiredScopes, resourceScopes });
