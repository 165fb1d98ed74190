#!/usr/bin/env node
/**
 * `claude` in the sandboxes of Worker tests. It does the work of Claude Code that the scripted model needs, in a tenth of the
 * processor time: it sends the conversation to the model, runs Bash and Write, prints the events, and keeps the conversation for
 * --resume. Tasks with "[real]" or a command ("/fix") go to the real Claude Code, because they need its retries or its
 * definitions. In tests/e2e the real Claude Code does every task.
 */
const { spawnSync } = require("node:child_process");
const { randomUUID } = require("node:crypto");
const { globSync, mkdirSync, readFileSync, writeFileSync } = require("node:fs");
const { dirname, join } = require("node:path");
const { parseArgs } = require("node:util");

const CLAUDE_CODE = "/opt/sandbox-runtime/claude-code";

const { HOME = "", ANTHROPIC_BASE_URL, ANTHROPIC_API_KEY = "" } = process.env;
const args = process.argv.slice(2);
const task = readFileSync(0, "utf8");
if (task.startsWith("/") || task.includes("[real]")) {
  const { status } = spawnSync(CLAUDE_CODE, args, { input: task, stdio: ["pipe", "inherit", "inherit"] });
  process.exit(status ?? 1);
}
// A test looks for processes of this name.
process.title = "claude";

const {
  values: { model = "scripted", resume },
} = parseArgs({
  args,
  strict: false,
  options: { model: { type: "string" }, resume: { type: "string" }, "max-turns": { type: "string" } },
});
const session_id = resume ?? randomUUID();
const projects = join(HOME, ".claude/projects");
const [earlier] = globSync(`${projects}/*/${session_id}.jsonl`);
const conversationPath = earlier ?? join(projects, process.cwd().replaceAll("/", "-"), `${session_id}.jsonl`);
const messages = [];

function print(event) {
  process.stdout.write(`${JSON.stringify({ session_id, ...event })}\n`);
}

function end(result, num_turns, usage) {
  const is_error = usage === undefined;
  print({ type: "result", subtype: "success", is_error, result, num_turns, total_cost_usd: 0, usage });
  process.exitCode = Number(is_error);
}

/** The model's message from its stream. @throws Error with the text that the model's API returned */
async function askModel() {
  const tools = ["Bash", "Write"].map((name) => ({ name, input_schema: { type: "object" } }));
  const response = await fetch(`${ANTHROPIC_BASE_URL}/v1/messages`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-api-key": ANTHROPIC_API_KEY },
    body: JSON.stringify({ model, max_tokens: 1000, stream: true, tools, messages }),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`API Error: ${response.status} ${text}`);
  const message = { role: "assistant", content: [] };
  const usage = { input_tokens: 0, output_tokens: 0 };
  for (const [, data] of text.matchAll(/^data: (.*)$/gm)) {
    const event = JSON.parse(data);
    Object.assign(usage, event.message?.usage, event.usage);
    if (event.type === "content_block_start") message.content.push(event.content_block);
    const block = message.content.at(-1);
    if (event.delta?.type === "text_delta") block.text += event.delta.text;
    if (event.delta?.type === "input_json_delta") block.input = JSON.parse(event.delta.partial_json);
  }
  return { message, usage };
}

function runTool({ id: tool_use_id, name, input }) {
  let content = "";
  if (name === "Write") writeFileSync(input.file_path, input.content);
  else content = spawnSync("bash", ["-c", input.command], { encoding: "utf8" }).stdout;
  return { type: "tool_result", tool_use_id, content };
}

function add(message) {
  messages.push(message);
  const lines = messages.map((one) => JSON.stringify({ type: one.role, message: one }));
  mkdirSync(dirname(conversationPath), { recursive: true });
  writeFileSync(conversationPath, `${lines.join("\n")}\n`);
}

async function work() {
  if (resume !== undefined) {
    if (earlier === undefined) throw new Error(`No conversation found with session ID: ${resume}`);
    const lines = readFileSync(earlier, "utf8").trim().split("\n");
    messages.push(...lines.flatMap((line) => JSON.parse(line).message ?? []));
  }
  print({ type: "system", subtype: "init", model });
  add({ role: "user", content: task });
  for (let turn = 1; ; turn++) {
    const { message, usage } = await askModel();
    add(message);
    print({ type: "assistant", message });
    const calls = message.content.filter(({ type }) => type === "tool_use");
    const text = message.content.findLast(({ type }) => type === "text")?.text ?? "";
    if (calls.length === 0) return end(text, turn, usage);
    add({ role: "user", content: calls.map(runTool) });
  }
}

work().catch((error) => end(error.message, 0));
