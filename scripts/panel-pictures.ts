/** Makes the pictures of the panel in docs/images, with a server of npm start and sandboxes that run programs. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { root } from "../cli/program-files.ts";
import { launchChromium } from "../tests/clients/chromium.ts";
import { idIn } from "../tests/setup/mcp-client.ts";
import { bash, playScenarios, say, use } from "../tests/setup/scripted-agent.ts";
import { startServer, TOKEN } from "../tests/setup/server.ts";
import { callTool } from "../tests/setup/tool.ts";

const to = join(root, "docs/images");
mkdirSync(to, { recursive: true });

const APP = `const style = "font: 20px system-ui; margin: 3rem; background: #fff7e8; color: #4a2c00";
const page = '<body style="' + style + '"><h1>Bakery</h1><p>Three loaves are in the oven.</p><button>Order one</button>';
const server = require("http").createServer((request, response) => {
  console.log("\\x1b[32m" + request.method + "\\x1b[0m " + request.url + " \\x1b[36m200\\x1b[0m");
  response.setHeader("content-type", "text/html");
  response.end(page);
});
server.listen(8000, () => console.log("\\x1b[1mbakery\\x1b[0m listens on \\x1b[33m8000\\x1b[0m"));
`;

const model = await playScenarios({
  oven: [
    bash("grep -n loaves server.js"),
    use(
      "Edit",
      { file_path: "/workspace/server.js", old_string: "Three loaves are", new_string: "One loaf is" },
      "The page counts them in its text.",
    ),
    bash("node --check server.js && npm test"),
    bash("node --check server.js"),
    say("The page says that one loaf is in the oven. There are no tests to run: `npm test` has no script."),
  ],
});
const env = { ANTHROPIC_API_KEY: "sk-ant-no-key-at-all", ANTHROPIC_UPSTREAM_URL: model.url };
const [server, chromium] = await Promise.all([startServer({ env }), launchChromium()]);
try {
  const call = (name: string, args: Record<string, unknown>) => callTool(server.url, name, args);
  const run = (sandbox: string, command: string) => call("run_command", { sandbox, command });
  await run("default", "python3 --version");
  await call("run_code", { sandbox: "default", code: "sum(range(100))" });
  await call("write_file", { sandbox: "bakery", path: "server.js", content: APP });
  await run("bakery", "node --check server.js");
  await run("bakery", "ls missing");
  await call("run_command", {
    sandbox: "bakery",
    command: "node server.js",
    wait_seconds: 0,
    session: "server",
  });
  await call("expose_port", { sandbox: "bakery", port: 8000 });

  const page = await (await chromium.newContext({ viewport: { width: 1280, height: 800 } })).newPage();
  await page.goto(new URL("/panel", server.url).href);
  await page.click("a:text-is('Sign in')");
  await page.fill("#token", TOKEN);
  await page.click("button:text-is('Sign in')");
  await page.click("a:has-text('bakery')");
  await page.click(".runs a:has-text('node server.js')");
  await page.click("button:text-is('Open port 8000')");
  await page.frameLocator("iframe").locator("h1").waitFor();
  await page.waitForSelector(".row:has-text('GET /')");
  const shoot = async (name: string) => {
    for (const colorScheme of ["light", "dark"] as const) {
      await page.emulateMedia({ colorScheme });
      await page.screenshot({ path: join(to, `${name}-${colorScheme}.png`) });
    }
    await page.emulateMedia({ colorScheme: "light" });
  };
  await shoot("panel");
  await page.click("button:text-is('Open port 8000')");
  await page.setViewportSize({ width: 390, height: 800 });
  await page.screenshot({ path: join(to, "panel-phone.png") });

  await page.setViewportSize({ width: 1280, height: 800 });
  const task = "There is one loaf in the oven: say so on the page.\n[[oven]]";
  const answer = await call("execute_task", { task, sandbox: "bakery", wait_seconds: 0 });
  const open = async (id: string) => {
    await page.goto(`${new URL("/panel", server.url).href}#/bakery/runs/${id}`);
    await page.locator("section.run").evaluate((element) => element.scrollIntoView());
  };
  await open(idIn({ text: answer }));
  await page.waitForSelector(".diff");
  await open(idIn({ text: answer }));
  await shoot("panel-task");

  await page.goto(new URL("/panel", server.url).href);
  await page.waitForSelector("main a:has-text('node server.js')");
  await shoot("panel-start");

  await page.goto(`${new URL("/panel", server.url).href}#/bakery`);
  await page.check("input[name=interactive]");
  await page.fill("#command", "vim -c 'set number | syntax on' server.js");
  await page.press("#command", "Enter");
  await page.waitForSelector(".xterm-rows:has-text('createServer')");
  await page.locator("section.run").evaluate((element) => element.scrollIntoView());
  await shoot("panel-terminal");
} finally {
  await chromium.close();
  await server.stop();
  await model.close();
}
