/** The real Claude Code signs in to the server that `npm start` started. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { stripVTControlCharacters } from "node:util";
import { describe, expect, inject, it } from "vitest";
import { CLAUDE_CODE, runClaudeCode, claudeEnvironment } from "../setup/claude-code.ts";
import { Browser } from "../setup/oauth-client.ts";
import { TOKEN } from "../setup/server.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const server = inject("server");
const home = temporaryDirectory();

const claude = (args: string[]) => runClaudeCode(home, args);

/** Runs Claude Code in a terminal, and types the first text that `textToType` returns for the output so far. @returns all output */
async function runInTerminal(
  args: string[],
  textToType: (printed: string) => Promise<string | undefined>,
): Promise<string> {
  const command = [CLAUDE_CODE, ...args].map((word) => `'${word}'`).join(" ");
  const child = spawn("script", ["-qfec", command, "/dev/null"], {
    env: claudeEnvironment(home),
    cwd: home,
  });
  const ended = once(child, "exit");
  let printed = "";
  let hasTyped = false;
  for await (const chunk of child.stdout.setEncoding("utf8")) {
    printed += chunk;
    const typed = hasTyped ? undefined : await textToType(printed);
    if (typed === undefined) continue;
    hasTyped = true;
    child.stdin.write(`${typed}\r`);
  }
  await ended;
  return stripVTControlCharacters(printed);
}

/** The address that `claude mcp login` asks to open, once it is printed completely. */
function authorizationURL(printed: string): string | undefined {
  const text = stripVTControlCharacters(printed);
  return text.includes("paste the redirect URL")
    ? /http:\/\/[\w.:]+\/authorize\?\S+/.exec(text)?.[0]
    : undefined;
}

describe("Claude Code", () => {
  it("signs in by OAuth with only the URL", async () => {
    await claude(["mcp", "add", "--transport", "http", "--scope", "user", "sandbox", server.url]);
    const printed = await runInTerminal(["mcp", "login", "sandbox", "--no-browser"], async (text) => {
      const url = authorizationURL(text);
      if (url === undefined) return undefined;
      const browser = new Browser((to, init) => fetch(to, init));
      const page = await browser.open(url);
      expect(page.text).toMatch(/Claude Code.* asks for access/);
      return (await browser.submit(page, { decision: "owner", token: TOKEN })).location?.href;
    });
    expect(printed).toMatch(/authenticated|success/i);
    expect(await claude(["mcp", "list"])).toMatch(/sandbox: .*Connected/);
  });
});
