/** Makes the pictures of the panel in docs/images, of the server as it is started and of sandboxes at work. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { root } from "../cli/places.ts";
import { launchChromium } from "../tests/setup/chromium.ts";
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

const [server, chromium] = await Promise.all([startServer(), launchChromium()]);
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
  await page.click("button:text-is('Port 8000 beside it')");
  await page.frameLocator("iframe").locator("h1").waitFor();
  await page.waitForSelector(".row:has-text('GET /')");
  for (const colorScheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: join(to, `panel-${colorScheme}.png`) });
  }
  await page.click("button:text-is('Port 8000 beside it')");
  await page.setViewportSize({ width: 390, height: 800 });
  await page.emulateMedia({ colorScheme: "light" });
  await page.screenshot({ path: join(to, "panel-phone.png") });
} finally {
  await chromium.close();
  await server.stop();
}
