/** Makes docs/images/claude-code.png: the real Claude Code, with a scripted model, connected to a server of npm start. */
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root } from "../cli/program-files.ts";
import { launchChromium } from "../tests/clients/chromium.ts";
import { CLAUDE_CODE, claudeEnvironment } from "../tests/setup/claude-code.ts";
import { startMessagesAPI, textReply } from "../tests/setup/messages-api.ts";
import { use } from "../tests/setup/scripted-agent.ts";
import { startServer, TOKEN } from "../tests/setup/server.ts";
import { callTool } from "../tests/setup/tool.ts";

const COLUMNS = 104;
const ROWS = 30;
const QUESTION = "How many primes are below ten million? Then start the build, and do not wait for it.";
const ANSWER =
  "There are 664,579 primes below ten million. The build goes on in the sandbox: I can fetch its result in a minute or in a week, also from another chat.";
const SIEVE = `import numpy as np
sieve = np.ones(10_000_000, dtype=bool)
sieve[:2] = False
for n in range(2, 3163):
    if sieve[n]: sieve[n*n::n] = False
int(sieve.sum())`;

const model = await startMessagesAPI((request) => {
  // Other requests, for example for a title, do not use our tools.
  if (!JSON.stringify(request.messages).includes(QUESTION)) return textReply("ok");
  const turns = request.messages.filter(({ role }) => role === "assistant").length;
  if (turns === 0) return use("mcp__sandbox__run_code", { code: SIEVE }, "I will count them with a sieve.");
  if (turns === 1) return use("mcp__sandbox__run_command", { command: "./build.sh", wait_seconds: 2 });
  return textReply(ANSWER);
});
const home = mkdtempSync(join(tmpdir(), "client-picture-"));
const project = join(home, "project");
const [server, chromium] = await Promise.all([startServer(), launchChromium()]);
try {
  await callTool(server.url, "write_file", {
    path: "build.sh",
    content: "#!/bin/sh\necho 'compiling 412 files'\nsleep 600\n",
  });
  await callTool(server.url, "run_command", { command: "chmod +x build.sh" });
  // Loads numpy, so that Claude Code's call ends within half a second. A longer call would return a task (MCP's Tasks extension).
  await callTool(server.url, "run_code", { code: SIEVE });

  const env = claudeEnvironment(home, model.url);
  mkdirSync(project);
  mkdirSync(join(home, "claude"));
  writeFileSync(
    join(home, "claude/.claude.json"),
    JSON.stringify({
      hasCompletedOnboarding: true,
      theme: "dark",
      customApiKeyResponses: { approved: [String(env.ANTHROPIC_API_KEY).slice(-20)], rejected: [] },
      projects: { [project]: { hasTrustDialogAccepted: true, hasCompletedProjectOnboarding: true } },
    }),
  );
  const sandbox = { type: "http", url: server.url, headers: { Authorization: `Bearer ${TOKEN}` } };
  writeFileSync(join(home, "mcp.json"), JSON.stringify({ mcpServers: { sandbox } }));

  const command = `stty rows ${ROWS} cols ${COLUMNS}; exec ${CLAUDE_CODE} --mcp-config ${home}/mcp.json --strict-mcp-config --verbose --permission-mode acceptEdits --allowedTools 'mcp__sandbox'`;
  const terminal = spawn("script", ["-qfec", command, "/dev/null"], {
    cwd: project,
    env: { ...env, TERM: "xterm-256color", COLORTERM: "truecolor", LANG: "C.UTF-8" },
  });
  const printed: Buffer[] = [];
  terminal.stdout.on("data", (bytes: Buffer) => printed.push(bytes));

  const page = await (await chromium.newContext({ viewport: { width: 940, height: 700 } })).newPage();
  const xterm = (path: string) => readFileSync(join(root, "node_modules/@xterm/xterm", path), "utf8");
  await page.setContent(`<style>${xterm("css/xterm.css")} body { margin: 0; background: #1e1e1e } #at { padding: 14px; width: max-content }</style>
    <div id="at"></div><script>${xterm("lib/xterm.js")}</script>`);
  /** The output so far, without two characters of Claude Code's interface that most fonts lack. */
  const outputToDraw = () =>
    Buffer.from(Buffer.concat(printed).toString().replaceAll("⎿", "└").replaceAll("⏵", "▸"));
  /** Draws the output so far, and returns the terminal's text. */
  const draw = () =>
    page.evaluate(
      `new Promise((done) => {
        document.getElementById("at").replaceChildren();
        const terminal = new Terminal({ cols: ${COLUMNS}, rows: ${ROWS}, fontSize: 14, lineHeight: 1.2, theme: { background: "#1e1e1e" } });
        terminal.open(document.getElementById("at"));
        terminal.write(Uint8Array.from(atob("${outputToDraw().toString("base64")}"), (c) => c.charCodeAt(0)), () =>
          done(Array.from({ length: ${ROWS} }, (_, row) => terminal.buffer.active.getLine(terminal.buffer.active.baseY + row)?.translateToString(true)).join("\\n")));
      })`,
    ) as Promise<string>;
  const waitForText = async (text: string) => {
    for (let tries = 0; tries < 120; tries++) {
      if ((await draw()).includes(text)) return;
      await page.waitForTimeout(500);
    }
    throw new Error(`${text} was not shown:
${await draw()}`);
  };
  await waitForText("❯");
  terminal.stdin.write(QUESTION);
  await page.waitForTimeout(500);
  terminal.stdin.write("\r");
  await waitForText("from another chat");
  await page.waitForTimeout(500);
  console.log(await draw());
  await page.locator("#at").screenshot({ path: join(root, "docs/images/claude-code.png") });
  terminal.kill();
} finally {
  await chromium.close();
  await server.stop();
  await model.close();
  rmSync(home, { recursive: true, force: true });
}
