/**
 * Generates pages and files from definitions in the code: tools, commands, variables, limits, tables, and skills.
 * `npm run docs` writes them; with --check it only names those that are stale. It is JavaScript because it runs in Node
 * but imports modules that are typed for workerd.
 */
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { Client } from "@modelcontextprotocol/client";
import { InMemoryTransport } from "@modelcontextprotocol/server";
import { skillEntry } from "@modelcontextprotocol/server/ext/skills";
import { isDeepStrictEqual } from "node:util";
import { applyEdits, modify } from "jsonc-parser";
import { dirname, join } from "node:path";
import { parseConfig } from "../src/shared/config.ts";
import { MAX_BODY_BYTES } from "../src/server/body.ts";
import { MAX_UPLOAD_BYTES } from "../src/shared/link-token.ts";
import { createMCPServer } from "../src/server/mcp.ts";
import { METHOD_KEYS } from "../src/auth/oauth-store.ts";
import { clientLines } from "../src/server/client-lines.ts";
import { LANGUAGES, TRAITS } from "../src/shared/languages.ts";
import { MAX_HOSTS } from "../src/shared/network-policy.ts";
import { PRINCIPAL_IDS, SCOPES, SIGN_IN_DOCS } from "../src/shared/principal.ts";
import { listedRun } from "../src/shared/run-listing.ts";
import { MAX_RUN_SECONDS } from "../src/shared/run-seconds.ts";
import { TOOL_SETS } from "../src/shared/tool-sets.ts";
import { GROUPS, VARIABLES, variables } from "../src/shared/variables.ts";
import { WAIT_SECONDS } from "../src/shared/wait.ts";
import { DIFF_BYTES, MAX_FILES } from "../src/runs/task-detail.ts";
import { ACCOUNT_CONTENT } from "../src/storage/account-schema.ts";
import { ATTEMPTS_CONTENT } from "../src/storage/attempts-schema.ts";
import { SANDBOX_CONTENT } from "../src/storage/sandbox-schema.ts";
import { MAX_IN_FLIGHT, MAX_REQUESTS } from "../src/tasks/budget.ts";
import { tools } from "../src/tools/index.ts";
import { endLines } from "../src/tools/run-summary.ts";
import { toolTypes } from "./tool-types.ts";
import { root } from "../cli/program-files.ts";

const check = process.argv.includes("--check");
const stale = [];
/** Pages with generated parts, by path. */
const pages = new Map();

/** The limit of the list of tools, in bytes; tests/worker/tools/kit.test.ts checks the same limit. */
const MAX_BYTES = 13_312;

function put(path, content) {
  const file = join(root, path);
  if (existsSync(file) && readFileSync(file, "utf8") === content) return;
  stale.push(path);
  if (check) return;
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, content);
}

/** The list of tools of a server that runs tasks. Listing calls no handler, so no bindings are needed. */
async function listTools() {
  const config = parseConfig({ ANTHROPIC_API_KEY: "any" });
  const connection = { sandbox: "default", structured: false };
  const caller = { config, principal: { id: "docs", scopes: SCOPES }, mayShowApps: true };
  const server = createMCPServer(caller, connection, { called: [], onlyCalls: false });
  const [near, far] = InMemoryTransport.createLinkedPair();
  const client = new Client({ name: "docs", version: "0" });
  await Promise.all([server.connect(far), client.connect(near)]);
  const { tools: definitions } = await client.listTools();
  await client.close();
  return definitions;
}

/**
 * The skills of plugin/skills as the server publishes them. Each skill is one file, because the server serves only SKILL.md.
 * Throws if a skill breaks a rule of the specification.
 */
async function publishedSkills() {
  const folder = join(root, "plugin/skills");
  const published = await Promise.all(
    readdirSync(folder)
      .toSorted()
      .map(async (name) => {
        const files = readdirSync(join(folder, name));
        if (files.join() !== "SKILL.md") throw new Error(`${name}: the server serves SKILL.md only`);
        const text = readFileSync(join(folder, name, "SKILL.md"), "utf8");
        return { skill: await skillEntry(name, { "SKILL.md": text }), text };
      }),
  );
  return `${JSON.stringify(published, null, 2)}\n`;
}

const count = (value) => value.toLocaleString("en-US");

function inUnits(bytes) {
  const power = Math.min(Math.floor(Math.log2(bytes) / 10), 3);
  return `${count(bytes / 1024 ** power)} ${["bytes", "KiB", "MiB", "GiB"][power]}`;
}

/** The rows of docs/reference/limits.md. */
const LIMITS = [
  ["time of one run (`timeout_seconds`)", `${count(MAX_RUN_SECONDS)} s`, "[runs](runs.md)"],
  ["body of one MCP request", inUnits(MAX_BODY_BYTES), "[tools](tools.md#write_file)"],
  ["one uploaded file", inUnits(MAX_UPLOAD_BYTES), "[files](files.md#links)"],
  ["hosts in `allow_hosts`", count(MAX_HOSTS), "[network](network.md#the-list)"],
  ["requests of one task to its model", count(MAX_REQUESTS), "[tasks](tasks.md#limits)"],
  ["requests of one task to its model at once", count(MAX_IN_FLIGHT), "[tasks](tasks.md#limits)"],
  ["changed files in a task's record", count(MAX_FILES), "[tasks](tasks.md#from-start-to-end)"],
  ["diff in a task's result", inUnits(DIFF_BYTES), "[tasks](tasks.md#from-start-to-end)"],
];

function sortKeys(value) {
  if (Array.isArray(value)) return value.map(sortKeys);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(
    Object.keys(value)
      .sort()
      .map((key) => [key, sortKeys(value[key] ?? null)]),
  );
}

/** A page, with the parts that were generated so far. */
function textOf(path) {
  return pages.get(path) ?? readFileSync(join(root, path), "utf8");
}

/** Replaces the generated part of a page, between its marks. */
function fill(path, marker, content) {
  const page = textOf(path);
  const pattern = new RegExp(`(<!-- ${marker}:start[^>]*-->\n)[\\s\\S]*?(<!-- ${marker}:end -->)`);
  if (!pattern.test(page)) throw new Error(`${path} has no marks for ${marker}`);
  const filled = page.replace(pattern, (_all, start, end) => `${start}\n${content.trim()}\n\n${end}`);
  pages.set(path, filled);
}

/** A table in Markdown. @param alignment of each column */
function table(columns, rows, alignment = columns.map(() => "---")) {
  return [columns, alignment, ...rows].map((row) => `| ${row.join(" | ")} |`).join("\n");
}

const inBackticks = (list) => list.map((word) => `\`${word}\``).join(", ");

function inputRow(name, property, required) {
  const type = property.enum ? inBackticks(property.enum) : (property.type ?? "");
  const fallback = property.default === undefined ? "" : ` Default \`${JSON.stringify(property.default)}\`.`;
  return [`\`${name}\`${required ? " (required)" : ""}`, type, `${property.description ?? ""}${fallback}`];
}

const definitions = await listTools();
const scopesText = ({ scopes, taskScopes }) =>
  inBackticks(scopes) + (taskScopes ? `; ${inBackticks(taskScopes)} for a task` : "");
const scopes = new Map(tools.map((tool) => [tool.name, scopesText(tool)]));

put("src/resources/skills.json", await publishedSkills());
put("client/tool-types.ts", toolTypes(tools));
// Imported after the types are written: the commands use the client library, which needs the current types.
const { commandReference } = await import("./cli-reference.ts");

const pinned = new Set(definitions.map(({ name }) => `${name}.json`));
for (const definition of definitions) {
  const json = JSON.stringify(sortKeys(JSON.parse(JSON.stringify(definition))), null, 2);
  put(`tests/definitions/${definition.name}.json`, `${json}\n`);
}
const directory = join(root, "tests/definitions");
for (const file of existsSync(directory) ? readdirSync(directory) : []) {
  if (pinned.has(file)) continue;
  stale.push(`tests/definitions/${file}`);
  if (!check) rmSync(join(directory, file));
}

const toolRows = definitions.map(({ name, description = "" }) => {
  const [sentence] = description.split(/(?<=\.)\s/);
  return [`\`${name}\``, sentence, scopes.get(name)];
});
fill("README.md", "tools", table(["tool", "what it does", "scope"], toolRows));

const reference = definitions.map(({ name, title, description, inputSchema }) => {
  const required = new Set(inputSchema.required ?? []);
  const rows = Object.entries(inputSchema.properties ?? {}).map(([field, property]) =>
    inputRow(field, property, required.has(field)),
  );
  const inputs = rows.length > 0 ? `\n\n${table(["input", "type", "meaning"], rows)}` : "";
  return `## \`${name}\`\n\n${title}. Scope ${scopes.get(name)}.\n\n${description}${inputs}`;
});
fill("docs/reference/tools.md", "tools", reference.join("\n\n"));
const sets = Object.entries(TOOL_SETS).map(([set, members]) => [`\`${set}\``, inBackticks(members)]);
fill("docs/reference/tools.md", "sets", table(["set", "tools"], sets));
fill("docs/reference/cli.md", "commands", commandReference());
const limits = table(["limit", "value", "page"], LIMITS, ["---", "--:", "---"]);
fill("docs/reference/limits.md", "limits", limits);

function contentTable({ tables, keys }) {
  const rows = (prefix, all) =>
    Object.entries(all).map(([name, { holds, kept }]) => [`${prefix}\`${name}\``, holds, kept]);
  return table(["table or key", "holds", "kept"], [...rows("", tables), ...rows("key ", keys)]);
}
for (const [marker, content] of Object.entries({
  "sandbox-tables": SANDBOX_CONTENT,
  "account-tables": ACCOUNT_CONTENT,
  "attempts-tables": ATTEMPTS_CONTENT,
}))
  fill("docs/internals/storage.md", marker, contentTable(content));
const methodKeys = Object.entries(METHOD_KEYS).map(([key, { id, holds, kept }]) => [
  `\`${key}:${id}\``,
  holds,
  kept,
]);
fill("docs/internals/storage.md", "method-keys", table(["key", "value", "kept"], methodKeys));
const methodRows = Object.entries(SIGN_IN_DOCS).map(([name, { title, offeredWhen, who }]) => [
  title,
  offeredWhen,
  `\`${PRINCIPAL_IDS[name].form}\``,
  who,
]);
const methods = table(["method", "offered when", "principal", "who may"], methodRows);
fill("docs/internals/security.md", "sign-in-methods", methods);

/** A row of docs/reference/variables.md. @param {[string, import("../src/shared/variables.ts").Variable]} entry */
function variableRow([name, { docs, example, secret, fallback = "off", default: value }]) {
  const meaning = `${docs}${secret === "value" ? " Secret." : ""}${example ? ` Example: \`${example}\`.` : ""}`;
  return [`\`${name}\``, meaning, value === undefined || Array.isArray(value) ? fallback : `\`${value}\``];
}

const groups = Object.entries(GROUPS).map(([title, rows]) => {
  const lines = Object.entries(rows).filter(([, { reader }]) => reader !== "local");
  return `## ${title}\n\n${table(["variable", "meaning", "if not set"], lines.map(variableRow))}\n`;
});
fill("docs/reference/variables.md", "variables", groups.join("\n"));

/** Sentences of pages that repeat a value of the code, with `{}` in place of the value. */
const wait = `${WAIT_SECONDS} seconds`;
const languages = LANGUAGES.map((language) => TRAITS[language].title);
const languagesList = new Intl.ListFormat("en-GB").format(languages);
const signInTitles = Object.entries(SIGN_IN_DOCS).flatMap(([name, { title }]) =>
  name === "owner" ? [] : title,
);
const principals = Object.values(PRINCIPAL_IDS).map(({ form }) => `\`${form}\``);
const stated = [
  ["README.md", "After {} a call answers", wait],
  ["docs/guides/long-jobs.md", "After {} the call answers", wait],
  ["docs/guides/long-jobs.md", "After {} the model gets an id", wait],
  ["docs/guides/ci.md", "takes longer than {}, the response is 202", wait],
  ["docs/guides/ci.md", "To change the {}, set the field", wait],
  ["docs/internals/decisions.md", "202 after {}**", wait],
  ["docs/reference/network.md", "waits for the decision, for up to {} |", wait],
  ["docs/reference/rest.md", "waits for the run's end: {} milliseconds", `${WAIT_SECONDS},000`],
  ["docs/start/clients.md", "The call answers after {} with an id", wait],
  ["examples/openai-agents.ts", "returns within {}.", wait],
  ["docs/reference/runs.md", "No call waits longer than {} seconds", variables.MAX_WAIT_SECONDS.default],
  ["README.md", "\n{} kernels, shell sessions", languagesList],
  ["docs/start/concepts.md", "a live interpreter ({})", languages.join(", ")],
  ["mcpb/manifest.json", "live {} kernels", languagesList],
  [
    "docs/guides/workspace-per-user.md",
    "With {}, each person has separate sandboxes",
    new Intl.ListFormat("en-GB", { type: "disjunction" }).format(signInTitles),
  ],
  [
    "docs/reference/secrets.md",
    "the principals that may use the secret: {}. By default",
    principals.join(", "),
  ],
  ["docs/reference/cli.md", "| `run` | {} |", inBackticks(["sandbox", ...Object.keys(listedRun.shape)])],
];
for (const [path, sentence, value] of stated) {
  const page = textOf(path);
  const [before, after] = sentence.split("{}").map((part) => RegExp.escape(part));
  const pattern = new RegExp(`(?<=${before}).{1,300}?(?=${after})`);
  if (!pattern.test(page))
    throw new Error(`${path} and the list in scripts/docs.mjs disagree: the page does not say "${sentence}"`);
  const said = page.replace(pattern, () => value);
  pages.set(path, said);
}
/** Words of the code that pages must have. */
const [[exitCode]] = endLines({ exitCode: 0 });
const token = { shell: "$(npm run -s token)", written: "<SERVER_AUTH_TOKEN>" };
const shellLines = clientLines("http://127.0.0.1:8787/mcp", token).filter(({ file }) => file === undefined);
const named = [
  ...principals.map((form) => ["docs/internals/security.md", form]),
  ...["long-jobs", "sessions", "set-ups", "web-app", "workspace-per-user"].map((page) => [
    `docs/guides/${page}.md`,
    `${exitCode}: 0`,
  ]),
  ["docs/start/quick-start.md", `${exitCode}: 2`],
  ["README.md", shellLines[0]?.text],
  ...shellLines.map(({ text }) => ["docs/start/clients.md", text]),
  ["plugin/skills/sandbox/SKILL.md", `\`${exitCode}\` other than 0`],
  ["docs/reference/tools.md", `A failing program is a result with its ${exitCode}.`],
];
const missing = named.filter(([path, words]) => !textOf(path).includes(words));
if (missing.length > 0)
  throw new Error(missing.map(([path, words]) => `${path} does not say "${words}".`).join(" "));
for (const [path, content] of pages) put(path, content);

const askedVariables = VARIABLES.filter(([, { askAtDeploy }]) => askAtDeploy !== undefined);
const INTRODUCTION =
  "# The Deploy to Cloudflare button asks for these variables. For npm start, copy those that you need into .dev.vars.\n\n";
const examples = askedVariables.map(([name, { askAtDeploy }]) => `# ${askAtDeploy}\n${name}=\n`);
put(".dev.vars.example", INTRODUCTION + examples.join(""));
const questions = Object.fromEntries(
  askedVariables.map(([name, { askAtDeploy }]) => [name, { description: askAtDeploy }]),
);
const description = readFileSync(join(root, "package.json"), "utf8");
if (!isDeepStrictEqual(JSON.parse(description).cloudflare.bindings, questions)) {
  const formattingOptions = { insertSpaces: true, tabSize: 2 };
  const edits = modify(description, ["cloudflare", "bindings"], questions, { formattingOptions });
  put("package.json", applyEdits(description, edits));
}

if (!check) {
  const bytes = Buffer.byteLength(JSON.stringify({ tools: definitions }));
  console.log(`The list of tools takes ${bytes} of ${MAX_BYTES} bytes.`);
}
if (check && stale.length > 0) {
  console.error(`These files are stale, so run npm run docs: ${stale.join(", ")}`);
  process.exit(1);
}
