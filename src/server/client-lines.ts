/** How to connect each client, for `npm start` and the landing page. */

export interface ClientLine {
  client: string;
  /** Without a file, the text is a shell command. */
  file?: string;
  text: string;
  /**
   * A link that opens the client, which then asks its user to add the server. The link has no token, because browsers keep
   * links in their history.
   */
  link?: string;
}

export function formatted({ file, text }: ClientLine): string {
  return file === undefined ? text : JSON.stringify(JSON.parse(text), null, 2);
}

/** @param token the text in place of the token: `shell` in a shell command, between double quotes; `written` in a file */
export function clientLines(url: string, token: { shell: string; written: string }): ClientLine[] {
  const header = `"Authorization: Bearer ${token.shell}"`;
  // ? and & are special characters in shells.
  const address = /[?&]/.test(url) ? `"${url}"` : url;
  const Authorization = `Bearer ${token.written}`;
  const http = { url, headers: { Authorization } };
  const desktop = {
    command: "npx",
    // Claude Desktop on Windows splits arguments at spaces, so the header is in a variable.
    args: ["-y", "mcp-remote", url, "--header", "Authorization:${AUTHORIZATION}"],
    env: { AUTHORIZATION: Authorization },
  };
  return [
    {
      client: "Claude Code",
      // Without a scope, Claude Code adds the server only for the current directory.
      text: `claude mcp add --scope user --transport http sandbox ${address} --header ${header}`,
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
      link: `cursor://anysphere.cursor-deeplink/mcp/install?name=sandbox&config=${encodeURIComponent(btoa(JSON.stringify({ url })))}`,
    },
    {
      client: "VS Code",
      file: ".vscode/mcp.json",
      text: JSON.stringify({ servers: { sandbox: { type: "http", ...http } } }),
      link: `vscode:mcp/install?${encodeURIComponent(JSON.stringify({ name: "sandbox", type: "http", url }))}`,
    },
    {
      client: "MCP Inspector",
      // Without @latest, npx on an older Node would choose an old version.
      text: `npx -y @modelcontextprotocol/inspector@latest --cli ${address} --transport http --header ${header} --method tools/list`,
    },
  ];
}
