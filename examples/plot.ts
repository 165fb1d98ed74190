/**
 * The client library in ten lines: a sandbox, code in it, and a plot that is downloaded. In your own project, import from
 * "sandbox-mcp/client".
 */
import { writeFile } from "node:fs/promises";
import { connect } from "../client/index.ts";

const { SANDBOX_MCP_URL: url = "http://127.0.0.1:8787/mcp", SANDBOX_MCP_TOKEN: token = "" } = process.env;
const sandbox = connect({ url, token }).sandbox("plot-example");
const { result } = await sandbox.runCode(`import matplotlib.pyplot as plt
plt.plot([n * n for n in range(10)]); plt.savefig("plot.png")
sum(n * n for n in range(10))`);
await writeFile("plot.png", await sandbox.files.read("plot.png"));
console.log(`The sum is ${result}. The plot is in plot.png.`);
await sandbox.destroy();
