/**
 * Checks the documents. Everything that they mention in prose or in fenced examples must exist: files, headings and pictures;
 * commands with their options (`npm run`, `npm start`, `sandbox-mcp`) and programs of this repository that `node` runs; calls of
 * tools; messages and the panel's labels, which the code must contain; names of variables, fields and error codes; files; names
 * of the code in docs/internals; routes of the server; versions of clients, and exit statuses. Every page has to be linked from
 * docs/README.md, and every picture has to be shown. Prints each problem, and exits with 1 if there is one.
 */
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { EXIT } from "../cli/exit.ts";
import { USAGE } from "../cli/options.ts";
import { leafCommands } from "../cli/command-tree.ts";
import { VARIABLES } from "../src/shared/variables.ts";
import { root } from "../cli/program-files.ts";

const read = (path) => readFileSync(join(root, path), "utf8");
/** Git lists a deleted file until the deletion is staged. */
const files = execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard"], { cwd: root })
  .toString()
  .split("\n")
  .filter((path) => existsSync(join(root, path)));
const documents = files.filter((path) => path.endsWith(".md"));
const problems = [];

/** Variables of other programs. */
const FOREIGN_VARIABLES = new Set([
  "LD_PRELOAD",
  "OPENAI_API_KEY",
  "OPENAI_BASE_URL",
  "TASK_ID",
  "CLOUDFLARE_ACCOUNT_ID",
]);

/** Parts of the SDK that the server does not use, and a variable of Python kernels. */
const FOREIGN_NAMES = new Set(["execStream", "getSandbox", "proxyToSandbox", "streamProcessLogs", "Out"]);

/** Options of other programs; a setting of wrangler, a table of the SDK, a state of MCP and tools that are not ours; a user's file in an example. */
const FOREIGN_OPTIONS = new Set(["--allow-scripts", "--protocol-era", "--scope"]);
const FOREIGN_WORDS = new Set([
  "account_id",
  "container_schedules",
  "input_required",
  "move_file",
  "web_search",
]);
const FOREIGN_FILES = new Set(["src/app.ts"]);

/** A heading's anchor, as GitHub makes it. */
function anchorOf(heading) {
  const text = heading.replace(/\[([^\]]*)\]\([^)]*\)/g, "$1").replaceAll("`", "");
  return text
    .toLowerCase()
    .replace(/[^\p{L}\p{N} _-]/gu, "")
    .replaceAll(" ", "-");
}

function anchorsOf(path) {
  return [...read(path).matchAll(/^#+ (.+)$/gm)].map(([, heading]) => anchorOf(heading));
}

const commands = leafCommands();

/** The options in a command line. Quoted parts are for the sandbox, so their options do not count. */
function flagsIn(words) {
  const flags = words.replace(/'[^']*'|"[^"]*"/g, "").matchAll(/\s(--[a-z-]+)/g);
  return [...flags].map(([, flag]) => flag).filter((flag) => flag !== "--help");
}

/** Checks the words after `npm start --` or `sandbox-mcp start`. */
function mistakesInStart(words) {
  const unknown = flagsIn(` ${words}`).filter((flag) => !USAGE.includes(`  ${flag} `));
  return unknown.map((flag) => `npm start has no ${flag}`);
}

/** Checks the words after `sandbox-mcp`: names an unknown command or option. */
function mistakesIn(words) {
  if (/^start\b/.test(words)) return mistakesInStart(words);
  const [name, command] = commands.find(([leaf]) => `${words} `.startsWith(`${leaf} `)) ?? [];
  if (name === undefined) {
    const [first] = words.split(" ");
    return commands.some(([leaf]) => leaf.startsWith(`${first} `)) ? [] : [`there is no command ${first}`];
  }
  const options = new Set(command.options.flatMap(({ long, short }) => [long, short]));
  return flagsIn(words)
    .filter((flag) => !options.has(flag))
    .map((flag) => `there is no ${name} ${flag}`);
}

/** Checks a call in an example: the tool, and the names of its inputs. */
function mistakesInCall(tool, input) {
  const definition = `tests/definitions/${tool}.json`;
  if (!existsSync(join(root, definition))) return [`there is no tool ${tool}`];
  const { properties } = JSON.parse(read(definition)).inputSchema;
  const unknown = Object.keys(JSON.parse(input)).filter((name) => !(name in properties));
  return unknown.map((name) => `${tool} has no input ${name}`);
}

const { scripts, dependencies } = JSON.parse(read("package.json"));
const clients = JSON.parse(read("tests/clients/package.json")).dependencies;
const [claudeCode] = Object.values(
  JSON.parse(read("local/agents/claude-code/package.json")).optionalDependencies,
);
const installed = { ...clients, ...dependencies, "@anthropic-ai/claude-code": claudeCode };
const shown = new Set();
for (const path of documents) {
  const text = read(path);
  const prose = text.replace(/^```[\s\S]*?^```/gm, "");
  const problem = (message) => problems.push(`${path}: ${message}`);
  for (const [, target] of prose.matchAll(/(?:\]\(|src(?:set)?="|^\[[^\]]+\]: )([^)"\s]+)/gm)) {
    if (/^[a-z]+:/i.test(target)) continue;
    const [file, anchor] = target.split("#");
    const at = file ? normalize(join(dirname(path), file)) : path;
    shown.add(at);
    if (!existsSync(join(root, at))) problem(`there is no ${target}`);
    else if (anchor && at.endsWith(".md") && !anchorsOf(at).includes(anchor))
      problem(`there is no heading ${target}`);
  }
  for (const [, name] of text.matchAll(/npm run (?:-s )?([\w:-]+)/g))
    if (!(name in scripts)) problem(`there is no npm run ${name}`);
  for (const [, words] of text.matchAll(/npm start -- ([^`\n|#;]*)/g))
    mistakesInStart(words).forEach(problem);
  for (const [, program] of text.matchAll(/\bnode ((?:bench|cli|examples|scripts|tests)\/[\w./-]+\.\w+)/g))
    if (!existsSync(join(root, program))) problem(`there is no ${program}`);
  const called =
    /(?:npm run (?:-s )?cli --|`sandbox-mcp|npx (?:-y )?\.\/sandbox-mcp-[\d.]+\.tgz) ([a-z][^`\n|#>;]*)/g;
  for (const [, words] of text.matchAll(called)) mistakesIn(words.trim()).forEach(problem);
  for (const [fence] of text.matchAll(/^```[\s\S]*?^```/gm)) {
    for (const [, words] of fence.matchAll(/(?:^\s*(?:[$] )?|[|&(] ?)sandbox-mcp ([a-z][^\n|#>;]*)/gm))
      mistakesIn(words.trim()).forEach(problem);
    for (const [, tool, input] of fence.matchAll(/^ *([a-z]+(?:_[a-z]+)+) +(\{[\s\S]*?\}) *$/gm))
      mistakesInCall(tool, input).forEach(problem);
  }
  for (const [, words] of prose.matchAll(/`([a-z][^`\n]* --[^`\n]*)`/g))
    if (commands.some(([leaf]) => words.startsWith(`${leaf} `))) mistakesIn(words).forEach(problem);
}

for (const picture of files.filter((path) => path.startsWith("docs/images/")))
  if (!shown.has(picture)) problems.push(`${picture}: no page shows it`);

const contents = read("docs/README.md");
for (const path of documents)
  if (/^docs\/.+\/.+\.md$/.test(path) && !contents.includes(`](${path.replace("docs/", "")}`))
    problems.push(`docs/README.md: no link to ${path}`);

/** The code, with the pieces of split messages joined. */
const code = files
  .filter((path) => /^(src|cli|local|container)\/.*\.(ts|py|pl|cjs)$/.test(path))
  .map((path) => read(path).replace(/["`] \+\s+["`]/g, ""))
  .join("\n");
for (const [, quoted] of read("docs/guides/troubleshoot.md").matchAll(/^\| `([^`]+)`/gm))
  if (/ /.test(quoted) && !code.includes(quoted))
    problems.push(`docs/guides/troubleshoot.md: no message in the code has the text "${quoted}"`);

/** The documents that quote messages: the pages, and the files in the root folder. */
const quoting = documents.filter((path) => path.startsWith("docs/") || !path.includes("/"));

const HOLE = "\0";
/** The code with HOLE in place of each interpolated value. */
const templates = code.replace(/\$\{[^}]*\}/g, HOLE);

/** A sentence of the server, or a line of a result: a label and its value. */
const MESSAGE = /^(?:[A-Z][a-z']*(?: [\w'’.,;:()/-]+){3,}|(?:listening|next|note|notice|error): .+)$/;
for (const path of quoting)
  for (const [, quoted] of read(path)
    .replace(/^```[\s\S]*?^```/gm, "")
    .matchAll(/`([^`\n]+)`/g)) {
    if (!MESSAGE.test(quoted)) continue;
    const message = quoted.replace(/^[a-z]+: /, "");
    // Numbers and names in a quoted message are examples.
    const template = message.replace(/\d+|<[^>]*>/g, HOLE);
    if (!code.includes(message) && !templates.includes(template))
      problems.push(`${path}: no message in the code has the text "${quoted}"`);
  }

/**
 * Splits a message into its parts without values. A value has a digit, a dash or a slash, or is the name of a variable. A comma or
 * another punctuation mark also separates parts.
 */
function fixedParts(message) {
  const parts = message.replace(/\S*(?:[\d/-]|[A-Z]_[A-Z])\S*/g, ",").split(/[.,:;()]+(?:\s+|$)|\s+\(/);
  return parts.map((part) => part.trim()).filter((part) => part.split(" ").length >= 3);
}

/** Whether the code has this part: as one text, with a value in place of one word, or inserted into another text. */
function isInCode(part) {
  const words = part.split(" ");
  const isTemplate = (...pieces) => templates.includes(pieces.flat().join(" "));
  const isText = (piece) => piece.length > 1 && code.includes(piece.join(" "));
  if (isText(words)) return true;
  return words.some((_word, at) => {
    const [before, after] = [words.slice(0, at), words.slice(at)];
    return (
      isTemplate(words.with(at, HOLE)) ||
      (before.length > 1 && isTemplate(before, HOLE) && isText(after)) ||
      (isText(before) && after.length > 1 && isTemplate(HOLE, after))
    );
  });
}

for (const path of quoting)
  for (const [, , language, example] of read(path).matchAll(/^ *(```+)(\w*)\n([\s\S]*?)^ *\1$/gm)) {
    if (!["", "text", "sh"].includes(language)) continue;
    for (const [, line] of example.matchAll(/^ *(?:(?:next|note|notice): |\d+\. )?([A-Z][a-z]+ .*\.)$/gm))
      for (const part of fixedParts(line))
        if (!isInCode(part))
          problems.push(`${path}: no message in the code has the text "${part}", as in "${line}"`);
    for (const [, row] of example.matchAll(/^[✓✗!-] {2}(\S+(?: \S+)*) {2,}/gm))
      if (!code.includes(row) && !isInCode(row)) problems.push(`${path}: no check has the name "${row}"`);
  }

/** The parts of a text in backticks or in a fence. */
const literalParts = (text) => text.match(/^ *(```+)[\s\S]*?^ *\1$|`[^`\n]+`/gm)?.join("\n") ?? "";

// The server's variables are in VARIABLES. Other names in capitals are constants, bindings and variables of the programs.
const variables = new Set(VARIABLES.map(([name]) => name));
const programs = files
  .filter(
    (path) => /(?:\.(?:ts|cjs|py|pl|sh|jsonc|yml)|Dockerfile)$/.test(path) && !path.startsWith("tests/"),
  )
  .map(read)
  .join("\n");
const named = new Set(programs.match(/\b[A-Z][A-Z0-9]*(?:_[A-Za-z0-9]+)+\b/g));
for (const path of documents)
  for (const [name] of literalParts(read(path)).matchAll(/(?<![\w"'/-])[A-Z][A-Z0-9]+(?:_[A-Za-z0-9]+)+\b/g))
    if (!variables.has(name) && !named.has(name) && !FOREIGN_VARIABLES.has(name))
      problems.push(`${path}: there is no variable ${name}`);

// Names of fields, tools and error codes, options and files. The pages about the internals have more options of other programs,
// and paths below other folders.
const programWords = new Set(programs.match(/\w+/g));
const options = new Set(commands.flatMap(([, command]) => command.options.map(({ long }) => long)));
for (const path of quoting) {
  const problem = (message) => problems.push(`${path}: ${message}`);
  const text = literalParts(read(path));
  for (const [, name] of text.matchAll(/`([a-z]+(?:_[a-z]+)+)`/g))
    if (!programWords.has(name) && !FOREIGN_WORDS.has(name)) problem(`the code has no ${name}`);
  if (path.startsWith("docs/internals/")) continue;
  for (const [, option] of text.matchAll(/`(--[a-z-]+)[^`\n]*`/g))
    if (!options.has(option) && !USAGE.includes(`  ${option} `) && !FOREIGN_OPTIONS.has(option))
      problem(`there is no option ${option}`);
  const paths =
    /(?<![\w./<>*@:-])(?:src|container|local|cli|client|panel|tests|scripts|bench|examples)\/[\w./-]+\.(?:ts|tsx|mjs|cjs|py|pl|sh|md|json)\b/g;
  for (const [file] of read(path).matchAll(paths))
    if (!existsSync(join(root, file)) && !FOREIGN_FILES.has(file)) problem(`there is no file ${file}`);
}

const panel = files
  .filter((path) => /^panel\/.*\.tsx?$/.test(path))
  .map(read)
  .join("\n");
for (const [, label] of read("docs/reference/panel.md").matchAll(/(?<!=)"([A-Z][^"\n]+)"/g))
  if (!panel.includes(label)) problems.push(`docs/reference/panel.md: the panel has no "${label}"`);

/** The routes that src/server/app.ts lists, with the values of the constants in their paths. */
function serverRoutes() {
  const constants = Object.fromEntries(
    [...programs.matchAll(/^(?:export )?const (\w+) = ["`](.+)["`];$/gm)].map(([, name, value]) => [
      name,
      value,
    ]),
  );
  const resolve = (value) => {
    const text = /^\w+$/.test(value) ? (constants[value] ?? "") : value.slice(1, -1);
    return text.replace(/\$\{(\w+)\}/g, (_all, name) => resolve(name));
  };
  const rows = read("src/server/app.ts")
    .replaceAll("paths.", "")
    .matchAll(/(?:path: |writingRoute\()([^,]+),\s+(?:methods: )?([^,]+?(?:, [A-Z, ]+["`])?),\n? /g);
  return [...rows].map(([, path, methods]) => ({ path: resolve(path), methods: resolve(methods) }));
}

const routes = serverRoutes();

function isRoute(path, method) {
  const parts = path.split("/");
  return routes.some((route) => {
    const pattern = route.path.split("/");
    const isOpen = pattern.at(-1) === "*";
    const fixed = isOpen ? pattern.slice(0, -1) : pattern;
    const isSame = fixed.every(
      (part, index) => part === parts[index] || (part.startsWith(":") && parts[index]),
    );
    const hasLength = isOpen ? parts.length > fixed.length : parts.length === fixed.length;
    return isSame && hasLength && (!method || route.methods.split(", ").includes(method));
  });
}

const REQUEST = /\b(GET|HEAD|POST|PUT|DELETE) (\/[^\s`?]*)/g;
const SERVER_URL = /(?:\$URL|http:\/\/127\.0\.0\.1:8787|https:\/\/sandbox\.example\.com)(\/[^\s`"'?,)]+)/g;
for (const path of documents) {
  const text = literalParts(read(path));
  for (const [, method, target] of text.matchAll(REQUEST))
    if (!isRoute(target, method)) problems.push(`${path}: there is no route ${method} ${target}`);
  for (const [, target] of text.matchAll(SERVER_URL))
    if (!isRoute(target)) problems.push(`${path}: there is no route ${target}`);
}

// Comments and messages name pages by their paths from the root.
for (const path of files.filter((each) => /\.(ts|tsx|mjs)$/.test(each)))
  for (const [page] of read(path).matchAll(/\bdocs\/[\w/-]+\.md\b/g))
    if (!existsSync(join(root, page))) problems.push(`${path}: there is no ${page}`);

// The pages about the internals name files and code: `MAX_TEXT` in `src/tools/read-file.ts`. The panel and the command line have
// names of their own, so a name counts only if the server has it.
const serverCode = files.filter((path) => /^(?:src|container|local)\/.*\.ts$/.test(path)).map(read);
const serverNames = new Set(serverCode.join("\n").match(/\w+/g));
const hasFile = (name) => files.some((path) => `/${path}`.endsWith(`/${name}`));
for (const path of documents.filter((each) => each.startsWith("docs/internals/"))) {
  const problem = (message) => problems.push(`${path}: ${message}`);
  const text = read(path);
  for (const [file] of literalParts(text).matchAll(
    /(?<![\w./<>*@-])[\w./-]+\.(?:ts|tsx|mjs|cjs|py|pl|sh)\b/g,
  ))
    if (!hasFile(file)) problem(`there is no file ${file}`);
  for (const [, name] of text.matchAll(/`#?([A-Za-z]*[a-z][A-Z]\w*|[A-Z][a-z]\w*)(?:\.\w+)?`/g))
    if (!serverNames.has(name) && !FOREIGN_NAMES.has(name)) problem(`the server's code has no ${name}`);
  for (const [, name, file] of text.matchAll(/`#?(\w+)` in `([\w/-]+\.\w+)`/g))
    if (existsSync(join(root, file)) && !new RegExp(`\\b${name}\\b`).test(read(file)))
      problem(`${file} has no ${name}`);
}

const [tried] = read("docs/start/clients.md").split("## Tried by hand");
for (const [, project, version] of tried.matchAll(/^\| .+? \| `(.+)` (\S+) \|/gm))
  if (installed[project] !== version)
    problems.push(`docs/start/clients.md: ${project} is ${installed[project]}, not ${version}`);

const statuses = [...read("docs/reference/cli.md").matchAll(/^\| (\d+) \|/gm)].map(([, status]) =>
  Number(status),
);
if (String(statuses) !== String(Object.values(EXIT)))
  problems.push(`docs/reference/cli.md: the exit statuses are ${Object.values(EXIT)}, not ${statuses}`);

if (problems.length > 0) {
  console.error(problems.join("\n"));
  process.exit(1);
}
