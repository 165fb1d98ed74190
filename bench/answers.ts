/**
 * Counts the tokens of the 40 answers that models get most often, from a local server:
 *
 *     npx node bench/answers.ts [--show] [--save <file>] [--before <file>]
 *
 * --show prints each answer, --save writes the counts to a file, --before compares with the counts of a file.
 */
import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { installClients } from "../tests/clients/install.ts";
import { MCPClient, idIn } from "../tests/setup/mcp-client.ts";
import { CONFIGS, serve, startEngine } from "./bed.ts";

const { values } = parseArgs({
  options: { show: { type: "boolean" }, save: { type: "string" }, before: { type: "string" } },
});

interface Tokenizer {
  getEncoding(name: string): { encode(text: string): number[] };
}

interface Answer {
  name: string;
  text: string;
}

type Arguments = Record<string, unknown>;

await installClients((line) => console.error(line));
const require = createRequire(new URL("../tests/clients/package.json", import.meta.url));
const { getEncoding } = require("js-tiktoken") as Tokenizer;
const encoding = getEncoding("o200k_base");

const directory = mkdtempSync(join(tmpdir(), "sandbox-mcp-answers-"));
const engine = await startEngine(directory, { network: "internet" });
const server = await serve(CONFIGS.ours, engine, join(directory, "server"), {
  variables: { LINK_KEY: randomBytes(32).toString("hex"), ANTHROPIC_API_KEY: "of-no-use" },
});
try {
  report(await collect(new MCPClient(server.client.url, server.client.token)));
} finally {
  await server.close();
  await engine.close();
  rmSync(directory, { recursive: true, force: true });
}

async function collect(client: MCPClient): Promise<Answer[]> {
  const answers: Answer[] = [];
  const ask = async (tool: string, args: Arguments): Promise<string> => {
    const { messages } = await client.send(tool, args);
    const { result, error } = messages.at(-1) ?? {};
    return (result?.content ?? []).map(({ text }) => text ?? "").join("\n") || (error?.message ?? "");
  };
  const keep = async (name: string, tool: string, args: Arguments): Promise<string> => {
    const text = await ask(tool, args);
    answers.push({ name, text });
    return text;
  };

  const [first] = (
    await client.post({
      method: "initialize",
      params: {
        protocolVersion: "2025-11-25",
        capabilities: {},
        clientInfo: { name: "bench", version: "1" },
      },
    })
  ).messages;
  const [list] = (await client.post({ method: "tools/list", params: {} })).messages;
  // Clients pass only these fields to their models.
  const tools = Reflect.get(list?.result ?? {}, "tools") as Arguments[];
  const shown = tools.map(({ name, description, inputSchema }) => ({ name, description, inputSchema }));
  answers.push({ name: "tools/list", text: JSON.stringify(shown) });
  answers.push({ name: "instructions", text: String(Reflect.get(first?.result ?? {}, "instructions")) });

  await keep("run_code: value", "run_code", { code: "1 + 1" });
  await keep("run_code: prints", "run_code", { code: "print('a')\n2" });
  await keep("run_code: nothing", "run_code", { code: "x = 1" });
  await keep("run_code: exception", "run_code", { code: "1 / 0" });
  await keep("run_command", "run_command", { command: "echo hello" });
  await keep("run_command: fails", "run_command", { command: "ls missing" });
  await keep("write_file", "write_file", { path: "notes.txt", content: "one\ntwo\nthree\n" });
  await keep("read_file", "read_file", { path: "notes.txt" });
  await keep("read_file: a page", "read_file", { path: "notes.txt", limit: 1 });
  await keep("edit_file", "edit_file", {
    path: "notes.txt",
    edits: [{ old_text: "two", new_text: "second" }],
  });
  await keep("list_files", "list_files", {});

  const long = await keep("run_command: output is cut", "run_command", {
    command: "seq 1 8000 | tr '\\n' ' ' | head -c 33000",
  });
  answers.at(-1)!.text = shortenOutput(long);
  const goesOn = idIn({
    text: await keep("run_command: goes on", "run_command", { command: "sleep 60", wait_seconds: 1 }),
  });
  await keep("get_result: still running", "get_result", { id: goesOn, wait_seconds: 0 });
  await keep("run_command: waits its turn", "run_command", { command: "true", wait_seconds: 0 });
  await keep("cancel_run", "cancel_run", { id: goesOn });
  await keep("run_command: times out", "run_command", { command: "sleep 9", timeout_seconds: 1 });
  await keep("run_code: times out", "run_code", {
    code: "import time; time.sleep(9)",
    timeout_seconds: 1,
  });
  await keep("run_command: a server starts", "run_command", {
    command: "python3 -m http.server 8000 > log 2>&1 & sleep 2",
  });
  await keep("list_runs", "list_runs", { limit: 3 });
  await keep("expose_port", "expose_port", { port: 8000 });
  await keep("file_link", "file_link", { path: "notes.txt" });
  const typed = idIn({ text: await ask("run_command", { command: "cat", interactive: true }) });
  await keep("send_input", "send_input", { id: typed, text: "hi\n" });
  await keep("send_input: has ended", "send_input", { id: goesOn, text: "hi\n" });
  const made = await keep("checkpoint_sandbox", "checkpoint_sandbox", {});
  const checkpoint = /[Cc]heckpoint:? (\S+)/.exec(made)?.[1] ?? "";
  await keep("restore_sandbox", "restore_sandbox", { checkpoint, sandbox: "default" });
  await keep("the next call after a stop", "run_command", { command: "echo hello" });
  await keep("configure_sandbox", "configure_sandbox", {
    sandbox: "closed",
    env: { LEVEL: "debug" },
    internet: "none",
  });
  await keep("network refused", "run_command", {
    sandbox: "closed",
    command: "curl -sS http://example.com/",
  });
  await ask("configure_sandbox", { sandbox: "broken", setup: "echo no such package >&2; exit 3" });
  await keep("set-up failed", "run_command", { sandbox: "broken", command: "true" });
  await keep("list_sandboxes", "list_sandboxes", {});
  await keep("destroy_sandbox", "destroy_sandbox", { sandbox: "broken" });

  await keep("read_file: missing", "read_file", { path: "absent.txt" });
  await keep("read_file: a directory", "read_file", { path: "/workspace" });
  await keep("edit_file: text is absent", "edit_file", {
    path: "notes.txt",
    edits: [{ old_text: "tow", new_text: "two" }],
  });
  await keep("edit_file: text is repeated", "edit_file", {
    path: "notes.txt",
    edits: [{ old_text: "o", new_text: "0" }],
  });
  await keep("a sandbox's name is wrong", "run_command", { sandbox: "My Sandbox", command: "true" });
  await keep("get_result: expired", "get_result", { id: `default.${"0".repeat(25)}1` });
  return answers;
}

/** Replaces random ids with fixed ones, so that equal texts have equal counts. */
function withFixedIDs(text: string): string {
  return text
    .replaceAll(/\.[0-9a-z]{26}\b/g, ".01m81faf1hy28mkb4x67kwqhwe")
    .replaceAll(/\bcp-[0-9a-z]{12}\b/g, "cp-u6hsiqju6x2g")
    .replaceAll(/(\bdefault-)[0-9a-z]{16}\b/g, "$1jqics2l64nmhcxj2")
    .replaceAll(/(\bjqics2l64nmhcxj2-)[0-9a-z]{25}\b/g, "$1dmxjyvtinlxf1e5uaotn816c2")
    .replaceAll(/(jqics2l64nmhcxj2\.)[\w-]{28}/g, "$11s4u2UDjToBIgZa_JsIQh_s-yhzP")
    .replaceAll(/\b[0-9a-f]{64}\b/g, "fb7fbabd51b6311d28a34842af2fc207521484bcf5ccc45f59e473621bc248aa");
}

/** Shortens long output to a few characters, because only the server's own text should count. */
function shortenOutput(text: string): string {
  return text.replaceAll(/(\d+ ){20,}\d*/g, "1 2 3");
}

function report(answers: readonly Answer[]): void {
  const before: Record<string, number> = values.before ? JSON.parse(readFileSync(values.before, "utf8")) : {};
  const counts = answers.map(({ name, text }) => [name, encoding.encode(withFixedIDs(text)).length] as const);
  if (values.show) for (const { name, text } of answers) console.log(`## ${name}\n\n${text}\n`);
  if (values.save) writeFileSync(values.save, JSON.stringify(Object.fromEntries(counts), null, 2));
  const sum = (rows: readonly (readonly [string, number])[]) => [
    rows.reduce((total, [name]) => total + (before[name] ?? 0), 0),
    rows.reduce((total, [, tokens]) => total + tokens, 0),
  ];
  const line = (name: string, [was = 0, is = 0]: number[]) => {
    const change = was > 0 ? ` ${String(was)} | ${is} | ${Math.round((is / was - 1) * 100)} %` : ` ${is}`;
    console.log(`| ${name} |${change} |`);
  };
  console.log(values.before ? "| answer | before | now | change |" : "| answer | tokens |");
  console.log(values.before ? "| --- | --: | --: | --: |" : "| --- | --: |");
  for (const [name, tokens] of counts) line(name, [before[name] ?? 0, tokens]);
  line(`the ${counts.length - 2} results and errors`, sum(counts.slice(2)));
  line(`all ${counts.length}`, sum(counts));
}
