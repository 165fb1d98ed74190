/**
 * A nightly job: adds today's numbers to a history that stays in the sandbox, and prints a report, which cron mails.
 * In your own project, import from "sandbox-mcp/client".
 *   node nightly.ts 12.5 13.1 12.9
 */
import { connect } from "../client/index.ts";

const { SANDBOX_MCP_URL: url = "http://127.0.0.1:8787/mcp", SANDBOX_MCP_TOKEN: token = "" } = process.env;

const day = new Date().toISOString().slice(0, 10);
const lines = process.argv.slice(2).map((value) => `${day},${value}\n`);

const sandbox = connect({ url, token }).sandbox("nightly");
// Files below /workspace stay until tomorrow. Variables do not, because the container will have stopped.
const added = await sandbox.runCommand("cat >> history.csv", { stdin: lines.join("") });
if (!added.isSuccess) throw new Error(added.stderr);
const { isSuccess, error, state } = await sandbox.runCode(`
import pandas
history = pandas.read_csv("history.csv", names=["day", "value"])
report = history.groupby("day").value.agg(["count", "mean", "max"])
open("report.txt", "w").write(report.to_string())`);
if (!isSuccess) throw new Error(error?.message ?? state);
console.log(await sandbox.files.readText("report.txt"));
