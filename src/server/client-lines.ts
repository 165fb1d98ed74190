/** How to connect each client. `npm start` prints these lines, and the page for browsers shows them. */

export interface ClientLine {
  client: string;
  /** The file that the text belongs in; without one, the text is a shell command. */
  file?: string;
  text: string;
  /**
   * Opens the client, which asks its user to add the server. It holds no token, since links are kept in histories and passed on: the
   * client signs in by OAuth.
   */
  link?: string;
}

/** Its text as a person reads it: the JSON of a file on several lines. */
export function formatted({ file, text }: ClientLine): string {
  return file === undefined ? text : JSON.stringify(JSON.parse(text), null, 2);
}

/** @param token what to write in place of the token: `shell` within double quotes of a shell, `written` in a file */
export function clientLines(url: string, token: { shell: string; written: string }): ClientLine[] {
  const header = `"Authorization: Bearer ${token.shell}"`;
  // ? and & are special characters of shells.
  const address = /[?&]/.test(url) ? `"${url}"` : url;
  const Authorization = `Bearer ${token.written}`;
  const http = { url, headers: { Authorization } };
  const desktop = {
    command: "npx",
    // The header is in a variable because Claude Desktop on Windows splits arguments at spaces.
    args: ["-y", "mcp-remote", url, "--header", "Authorization:${AUTHORIZATION}"],
    env: { AUTHORIZATION: Authorization },
  };
  return [
    {
      client: "Claude Code",
      // Without a scope it would be there only in the directory in which the line is typed.
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
      // With @latest, because npx on an older Node would choose an old version.
      text: `npx -y @modelcontextprotocol/inspector@latest --cli ${address} --transport http --header ${header} --method tools/list`,
    },
  ];
}
