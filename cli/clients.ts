/** The clients of `sandbox-mcp connect`: where each stores its MCP servers, and in which format. */
import { join } from "node:path";
import { isRecord } from "../src/shared/is-record.ts";

export type Endpoint =
  | { kind: "http"; url: string; token: string }
  /** A process that connects to the server: `sandbox-mcp stdio`. */
  | { kind: "process"; command: string; args: readonly string[]; env: Readonly<Record<string, string>> };

interface Machine {
  platform: NodeJS.Platform;
  home: string;
  env: Readonly<Record<string, string | undefined>>;
}

/** A file's location: an existing directory, and subdirectories that may have to be created. */
export interface Place {
  directory: string;
  path: string;
  /** The variable or option that names the directory; undefined for the user's home. */
  variable?: string;
}

export interface ClientKind {
  name: string;
  title: string;
  /** The format of the configuration file. JSON may have comments. */
  format: "json" | "toml" | "yaml";
  place(machine: Machine): Place;
  /** The project's configuration file, relative to its directory; undefined if the client has none. */
  projectFile?: string;
  /** The keys from the top to the table of servers; may depend on the file's content. */
  path(content: unknown): readonly string[];
  /** Whether the client supports HTTP with a header. Otherwise it starts a process. */
  speaksHTTP: boolean;
  entry(endpoint: Endpoint): Record<string, unknown>;
  next: string;
}

const bearer = (token: string) => ({ Authorization: `Bearer ${token}` });

const processEntry = ({ command, args, env }: Extract<Endpoint, { kind: "process" }>) => ({
  command,
  args: [...args],
  ...(Object.keys(env).length > 0 ? { env: { ...env } } : {}),
});

/** The entry of most clients. These clients differ only in the name of the field for the URL. */
const commonEntry =
  (urlKey: string, more: Record<string, unknown> = {}) =>
  (endpoint: Endpoint): Record<string, unknown> =>
    endpoint.kind === "process"
      ? processEntry(endpoint)
      : { ...more, [urlKey]: endpoint.url, headers: bearer(endpoint.token) };

/** A file in the directory that a variable names, or else in the user's home. */
function fileBelowVariable({ home, env }: Machine, variable: string, inHome: string, path: string): Place {
  const directory = env[variable];
  return directory ? { directory, path, variable } : { directory: home, path: join(inHome, path) };
}

/** A settings file, where Electron applications keep theirs. */
function applicationData(machine: Machine, path: string): Place {
  const { platform, home } = machine;
  if (platform === "darwin") return { directory: home, path: join("Library/Application Support", path) };
  if (platform === "win32") return fileBelowVariable(machine, "APPDATA", "AppData/Roaming", path);
  return configFile(machine, path);
}

const configFile = (machine: Machine, path: string) =>
  fileBelowVariable(machine, "XDG_CONFIG_HOME", ".config", path);

const homeFile =
  (path: string) =>
  ({ home }: Machine): Place => ({ directory: home, path });

/** The properties of most clients. A client that differs states its own. */
const COMMON = { format: "json", path: () => ["mcpServers"], speaksHTTP: true } as const;

type Described = Omit<ClientKind, keyof typeof COMMON> & Partial<ClientKind>;

const DESCRIBED: readonly Described[] = [
  {
    name: "claude-code",
    title: "Claude Code",
    place: (machine) => fileBelowVariable(machine, "CLAUDE_CONFIG_DIR", "", ".claude.json"),
    projectFile: ".mcp.json",
    entry: commonEntry("url", { type: "http" }),
    next: "Start claude; /mcp shows the server.",
  },
  {
    name: "claude-desktop",
    title: "Claude Desktop",
    place: (machine) => applicationData(machine, "Claude/claude_desktop_config.json"),
    speaksHTTP: false,
    entry: commonEntry("url"),
    next: "Quit Claude Desktop and start it again.",
  },
  {
    name: "cursor",
    title: "Cursor",
    place: homeFile(".cursor/mcp.json"),
    projectFile: ".cursor/mcp.json",
    entry: commonEntry("url"),
    next: "Cursor's settings show the server under MCP.",
  },
  {
    name: "vscode",
    title: "VS Code",
    place: (machine) => applicationData(machine, "Code/User/mcp.json"),
    projectFile: ".vscode/mcp.json",
    path: () => ["servers"],
    entry: (endpoint) =>
      endpoint.kind === "process"
        ? { type: "stdio", ...processEntry(endpoint) }
        : commonEntry("url", { type: "http" })(endpoint),
    next: 'The command "MCP: List Servers" starts the server.',
  },
  {
    name: "windsurf",
    title: "Windsurf",
    place: homeFile(".codeium/windsurf/mcp_config.json"),
    entry: commonEntry("serverUrl"),
    next: "Refresh the list of MCP servers in Cascade.",
  },
  {
    name: "zed",
    title: "Zed",
    place: (machine) =>
      machine.platform === "win32"
        ? applicationData(machine, "Zed/settings.json")
        : configFile(machine, "zed/settings.json"),
    projectFile: ".zed/settings.json",
    path: () => ["context_servers"],
    entry: commonEntry("url"),
    next: "The settings of the agent panel show the server.",
  },
  {
    name: "codex",
    title: "Codex",
    format: "toml",
    place: (machine) => fileBelowVariable(machine, "CODEX_HOME", ".codex", "config.toml"),
    projectFile: ".codex/config.toml",
    path: () => ["mcp_servers"],
    // Codex has no field `headers`, and would ignore it.
    entry: (endpoint) =>
      endpoint.kind === "process"
        ? processEntry(endpoint)
        : { url: endpoint.url, http_headers: bearer(endpoint.token) },
    next: "Start codex; /mcp shows the server.",
  },
  {
    name: "gemini-cli",
    title: "Gemini CLI",
    place: homeFile(".gemini/settings.json"),
    projectFile: ".gemini/settings.json",
    // The field `url` is for the older transport, Server-Sent Events.
    entry: commonEntry("httpUrl"),
    next: "Start gemini; /mcp shows the server.",
  },
  {
    name: "opencode",
    title: "OpenCode",
    place: (machine) => configFile(machine, "opencode/opencode.json"),
    projectFile: "opencode.json",
    // OpenCode 2 has a table `servers` in `mcp`. It also reads the form of OpenCode 1, where `mcp` has the servers themselves.
    path: (content) =>
      isRecord(content) &&
      isRecord(content.mcp) &&
      isRecord(content.mcp.servers) &&
      !("type" in content.mcp.servers)
        ? ["mcp", "servers"]
        : ["mcp"],
    entry: (endpoint) =>
      endpoint.kind === "process"
        ? { type: "local", command: [endpoint.command, ...endpoint.args], environment: { ...endpoint.env } }
        : { type: "remote", url: endpoint.url, headers: bearer(endpoint.token) },
    next: "Start opencode; `opencode mcp list` shows the server.",
  },
  {
    name: "cline",
    title: "Cline",
    place: homeFile(".cline/data/settings/cline_mcp_settings.json"),
    // Without a type, `url` is for the older transport, Server-Sent Events.
    entry: commonEntry("url", { type: "streamableHttp" }),
    next: "Start cline; /mcp shows the server. In an editor, copy the entry to MCP Servers > Configure.",
  },
  {
    name: "copilot-cli",
    title: "Copilot CLI",
    place: (machine) => fileBelowVariable(machine, "COPILOT_HOME", ".copilot", "mcp-config.json"),
    projectFile: ".github/mcp.json",
    // Copilot offers a model only the tools that are named here.
    entry: (endpoint) => ({
      ...(endpoint.kind === "process"
        ? { type: "local", ...processEntry(endpoint) }
        : commonEntry("url", { type: "http" })(endpoint)),
      tools: ["*"],
    }),
    next: "Start copilot; /mcp show lists the server.",
  },
  {
    name: "continue",
    title: "Continue",
    // A separate file, because config.yaml has a list of entries without names.
    place: homeFile(".continue/mcpServers/sandbox-mcp.json"),
    projectFile: ".continue/mcpServers/sandbox-mcp.json",
    entry: commonEntry("url", { type: "http" }),
    next: "Start cn, or reload Continue's configuration; /mcp shows the server.",
  },
  {
    name: "qwen-code",
    title: "Qwen Code",
    place: homeFile(".qwen/settings.json"),
    projectFile: ".qwen/settings.json",
    entry: commonEntry("httpUrl"),
    next: "Start qwen; /mcp shows the server.",
  },
  {
    name: "goose",
    title: "goose",
    format: "yaml",
    place: (machine) =>
      machine.platform === "win32"
        ? fileBelowVariable(machine, "APPDATA", "AppData/Roaming", "Block/goose/config/config.yaml")
        : configFile(machine, "goose/config.yaml"),
    path: () => ["extensions"],
    entry: (endpoint) => ({
      enabled: true,
      name: "sandbox",
      timeout: 300,
      ...(endpoint.kind === "process"
        ? { type: "stdio", cmd: endpoint.command, args: [...endpoint.args], envs: { ...endpoint.env } }
        : { type: "streamable_http", uri: endpoint.url, headers: bearer(endpoint.token) }),
    }),
    next: "Start goose session; `goose configure` shows the extension.",
  },
];

export const CLIENTS: readonly ClientKind[] = DESCRIBED.map((client) => Object.assign({}, COMMON, client));
