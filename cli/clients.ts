/** The clients that `sandbox-mcp connect` knows: where each keeps its MCP servers, and in which form. */
import { join } from "node:path";
import { isRecord } from "../src/shared/is-record.ts";

/** A server as a client is told of it. */
export type Endpoint =
  | { kind: "http"; url: string; token: string }
  /** A process that speaks for the server: `sandbox-mcp stdio`. */
  | { kind: "process"; command: string; args: readonly string[]; env: Readonly<Record<string, string>> };

/** What the place of a file depends on. */
export interface Machine {
  platform: NodeJS.Platform;
  home: string;
  env: Readonly<Record<string, string | undefined>>;
}

export interface ClientKind {
  /** As the user types it. */
  name: string;
  title: string;
  /** JSON with comments, or TOML. */
  format: "json" | "toml";
  /** The user's own configuration. */
  file(machine: Machine): string;
  /** That of a project, below its directory; undefined where the client has none. */
  projectFile?: string;
  /** Keys from the top of the file to the table of servers; may depend on what the file holds already. */
  path(content: unknown): readonly string[];
  /** Whether it speaks HTTP with a header; otherwise it starts a process. */
  speaksHTTP: boolean;
  entry(endpoint: Endpoint): Record<string, unknown>;
  /** What the user does next. */
  next: string;
}

const bearer = (token: string) => ({ Authorization: `Bearer ${token}` });

const asProcess = ({ command, args, env }: Extract<Endpoint, { kind: "process" }>) => ({
  command,
  args: [...args],
  ...(Object.keys(env).length > 0 ? { env: { ...env } } : {}),
});

/** The form that most clients share, with the name that each has for the URL. */
const common =
  (urlKey: string, more: Record<string, unknown> = {}) =>
  (endpoint: Endpoint): Record<string, unknown> =>
    endpoint.kind === "process"
      ? asProcess(endpoint)
      : { ...more, [urlKey]: endpoint.url, headers: bearer(endpoint.token) };

/** The directory of applications' settings, as Electron and its like have it. */
function applicationData({ platform, home, env }: Machine): string {
  if (platform === "darwin") return join(home, "Library/Application Support");
  if (platform === "win32") return env.APPDATA ?? join(home, "AppData/Roaming");
  return env.XDG_CONFIG_HOME || join(home, ".config");
}

export const CLIENTS: readonly ClientKind[] = [
  {
    name: "claude-code",
    title: "Claude Code",
    format: "json",
    file: ({ home, env }) => join(env.CLAUDE_CONFIG_DIR || home, ".claude.json"),
    projectFile: ".mcp.json",
    path: () => ["mcpServers"],
    speaksHTTP: true,
    entry: common("url", { type: "http" }),
    next: "Start claude; /mcp shows the server.",
  },
  {
    name: "claude-desktop",
    title: "Claude Desktop",
    format: "json",
    file: (machine) => join(applicationData(machine), "Claude/claude_desktop_config.json"),
    path: () => ["mcpServers"],
    speaksHTTP: false,
    entry: common("url"),
    next: "Quit Claude Desktop and start it again.",
  },
  {
    name: "cursor",
    title: "Cursor",
    format: "json",
    file: ({ home }) => join(home, ".cursor/mcp.json"),
    projectFile: ".cursor/mcp.json",
    path: () => ["mcpServers"],
    speaksHTTP: true,
    entry: common("url"),
    next: "Cursor's settings show it under MCP.",
  },
  {
    name: "vscode",
    title: "VS Code",
    format: "json",
    file: (machine) => join(applicationData(machine), "Code/User/mcp.json"),
    projectFile: ".vscode/mcp.json",
    path: () => ["servers"],
    speaksHTTP: true,
    entry: (endpoint) =>
      endpoint.kind === "process"
        ? { type: "stdio", ...asProcess(endpoint) }
        : common("url", { type: "http" })(endpoint),
    next: 'The command "MCP: List Servers" starts it.',
  },
  {
    name: "windsurf",
    title: "Windsurf",
    format: "json",
    file: ({ home }) => join(home, ".codeium/windsurf/mcp_config.json"),
    path: () => ["mcpServers"],
    speaksHTTP: true,
    entry: common("serverUrl"),
    next: "Refresh the list of MCP servers in Cascade.",
  },
  {
    name: "zed",
    title: "Zed",
    format: "json",
    file: (machine) =>
      machine.platform === "win32"
        ? join(applicationData(machine), "Zed/settings.json")
        : join(machine.env.XDG_CONFIG_HOME || join(machine.home, ".config"), "zed/settings.json"),
    projectFile: ".zed/settings.json",
    path: () => ["context_servers"],
    speaksHTTP: true,
    entry: common("url"),
    next: "The settings of the agent panel show it.",
  },
  {
    name: "codex",
    title: "Codex",
    format: "toml",
    file: ({ home, env }) => join(env.CODEX_HOME || join(home, ".codex"), "config.toml"),
    projectFile: ".codex/config.toml",
    path: () => ["mcp_servers"],
    speaksHTTP: true,
    // It has no `headers`, and ignores it.
    entry: (endpoint) =>
      endpoint.kind === "process"
        ? asProcess(endpoint)
        : { url: endpoint.url, http_headers: bearer(endpoint.token) },
    next: "Start codex; /mcp shows the server.",
  },
  {
    name: "gemini-cli",
    title: "Gemini CLI",
    format: "json",
    file: ({ home }) => join(home, ".gemini/settings.json"),
    projectFile: ".gemini/settings.json",
    path: () => ["mcpServers"],
    speaksHTTP: true,
    // `url` would be the older transport, Server-Sent Events.
    entry: common("httpUrl"),
    next: "Start gemini; /mcp shows the server.",
  },
  {
    name: "opencode",
    title: "OpenCode",
    format: "json",
    file: ({ home, env }) => join(env.XDG_CONFIG_HOME || join(home, ".config"), "opencode/opencode.json"),
    projectFile: "opencode.json",
    // Version 2 has a table `servers` within `mcp`, and reads the form of version 1 too.
    path: (content) =>
      isRecord(content) &&
      isRecord(content.mcp) &&
      isRecord(content.mcp.servers) &&
      !("type" in content.mcp.servers)
        ? ["mcp", "servers"]
        : ["mcp"],
    speaksHTTP: true,
    entry: (endpoint) =>
      endpoint.kind === "process"
        ? { type: "local", command: [endpoint.command, ...endpoint.args], environment: { ...endpoint.env } }
        : { type: "remote", url: endpoint.url, headers: bearer(endpoint.token) },
    next: "Start opencode; `opencode mcp list` shows the server.",
  },
];
