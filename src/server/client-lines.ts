/** How each client is told of the server: the same lines where `npm start` prints them and on the page for browsers. */

export interface ClientLine {
  client: string;
  /** The file that the text belongs in; a command for a shell where there is none. */
  file?: string;
  text: string;
}

/** `token` is what stands for the token: `shell` between double quotes of a shell, `written` in a file. */
export function clientLines(url: string, token: { shell: string; written: string }): ClientLine[] {
  const header = `"Authorization: Bearer ${token.shell}"`;
  // A shell takes ? and & for signs of its own.
  const address = /[?&]/.test(url) ? `"${url}"` : url;
  const Authorization = `Bearer ${token.written}`;
  const http = { url, headers: { Authorization } };
  const desktop = {
    command: "npx",
    // The header is in a variable because Claude Desktop on Windows breaks arguments with spaces apart.
    args: ["-y", "mcp-remote", url, "--header", "Authorization:${AUTHORIZATION}"],
    env: { AUTHORIZATION: Authorization },
  };
  return [
    {
      client: "Claude Code",
      text: `claude mcp add --transport http sandbox ${address} --header ${header}`,
    },
    {
      client: "Claude Desktop",
      file: "claude_desktop_config.json",
      text: JSON.stringify({ mcpServers: { sandbox: desktop } }),
    },
    {
      client: "Cursor",
      file: "~/.cursor/mcp.json",
      text: JSON.stringify({ mcpServers: { sandbox: http } }),
    },
    {
      client: "VS Code",
      file: ".vscode/mcp.json",
      text: JSON.stringify({ servers: { sandbox: { type: "http", ...http } } }),
    },
    {
      client: "MCP Inspector",
      // Named: npx on an older Node takes an old one by itself.
      text: `npx -y @modelcontextprotocol/inspector@latest --cli ${address} --transport http --header ${header} --method tools/list`,
    },
  ];
}
