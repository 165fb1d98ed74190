/**
 * Generates files from the definitions of the tools: tests/definitions, the table in the README and docs/reference/tools.md;
 * and from those of the command line: docs/reference/cli.md; from the names of tests: the tables of
 * docs/internals/reliability.md; from limits in the code: docs/reference/limits.md; and from the table of variables:
 * docs/reference/variables.md, .dev.vars.example and the questions of the Deploy button in package.json; and from
 * plugin/skills: src/resources/skills.json. `npm run docs` writes them; with --check it only names those that are stale. It is
 * JavaScript because it runs in Node but imports modules that are typed for workerd.
 */
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { Client } from "@modelcontextprotocol/client";
import { InMemoryTransport } from "@modelcontextprotocol/server";
import { isDeepStrictEqual } from "node:util";
import { applyEdits, modify } from "jsonc-parser";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { withBrokenThings } from "./broken-things.ts";
import { limitsPage } from "./limits.mjs";
import { parseConfig } from "../src/shared/config.ts";
import { createMCPServer } from "../src/server/mcp.ts";
import { SCOPES } from "../src/shared/principal.ts";
import { TOOL_SETS } from "../src/shared/tool-sets.ts";
import { GROUPS, VARIABLES } from "../src/shared/variables.ts";
import { ACCOUNT_SCHEMA } from "../src/storage/account-schema.ts";
import { ATTEMPTS_SCHEMA } from "../src/storage/attempts-schema.ts";
import { SANDBOX_SCHEMA } from "../src/storage/sandbox-schema.ts";
import { tools } from "../src/tools/index.ts";
import { publishedSkills } from "./skills.ts";
import { toolTypes } from "./tool-types.ts";

const root = fileURLToPath(new URL("../", import.meta.url));
const check = process.argv.includes("--check");
const stale = [];

/** The limit of the plain list of tools; tests/worker/tools/kit.test.ts has the same. */
const MAX_BYTES = 13_312;

function put(path, content) {
  const file = join(root, path);
  if (existsSync(file) && readFileSync(file, "utf8") === content) return;
  stale.push(path);
  if (check) return;
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, content);
}

/** The definitions as a server that runs tasks lists them. Listing calls no handler, so no bindings are needed. */
async function listed() {
  const config = parseConfig({ ANTHROPIC_API_KEY: "any" });
  const connection = { sandbox: "default", structured: false };
  const server = createMCPServer(
    { config, principal: { id: "docs", scopes: SCOPES }, mayShowApps: true },
    connection,
    {
      called: [],
      onlyCalls: false,
    },
  );
  const [near, far] = InMemoryTransport.createLinkedPair();
  const client = new Client({ name: "docs", version: "0" });
  await Promise.all([server.connect(far), client.connect(near)]);
  const { tools: definitions } = await client.listTools();
  await client.close();
  return definitions;
}

function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(
    Object.keys(value)
      .sort()
      .map((key) => [key, sorted(value[key] ?? null)]),
  );
}

function between(document, marker, content) {
  const pattern = new RegExp(`(<!-- ${marker}:start[^>]*-->\n)[\\s\\S]*?(<!-- ${marker}:end -->)`);
  if (!pattern.test(document)) throw new Error(`no place for ${marker}`);
  return document.replace(pattern, (_all, start, end) => `${start}${content}\n${end}`);
}

function inputRow(name, property, required) {
  const type = property.enum?.map((value) => `\`${value}\``).join(", ") ?? property.type ?? "";
  const fallback = property.default === undefined ? "" : ` Default \`${JSON.stringify(property.default)}\`.`;
  return `| \`${name}\`${required ? " (required)" : ""} | ${type} | ${property.description ?? ""}${fallback} |`;
}

const QUOTAS = `Each principal has limits: sandboxes, runs at once, and seconds that runs take in a day (UTC). A run over midnight counts on both days.
Processes that a command leaves in the background continue after its run. They do not count as runs, and end with the container:
[security.md](../internals/security.md#what-the-quotas-count-and-what-they-do-not).`;

const IMAGES = `## Images

\`run_code\`, \`read_file\` and artifacts of tasks show images of the same kinds: PNG, JPEG, GIF and WebP, recognized by
content, not by name. A line of text with each has its name and its size in pixels. An image that is too large or broken can end a chat in some
clients and models, so:

- An image of up to 1.15 million pixels, 8,000 on a side and 700 KiB is passed on unchanged. The sandbox scales a larger one down,
  with Pillow: it keeps the proportions, rotates the image upright by its EXIF data, makes transparent parts white, and shows the first frame of an
  animation. The result is PNG or JPEG, whichever has fewer bytes: a plot mostly stays PNG. The
  line of text has both sizes. \`run_code\` keeps the originals of up to 20 images of a run under \`/workspace/.outputs\`, with a link.
- A file may have 8 MiB, an image of a result 6 MiB, and either up to 100 million pixels. Scaling may take 20
  seconds and 1 GiB of memory. For an image beyond these limits the error has its size and says what to do.
- If a sandbox has no Pillow, the answer describes a large image and says how to install Pillow: \`pip install pillow\`. Smaller images are
  shown. If the sandbox of a task has stopped, an artifact that is too large is only described, with a link.
- \`/mcp?images=off\` leaves all images out, for clients and models that do not accept images. The line of text stays, and says how to get the image.
- Charts for a browser (HTML with a script, as Plotly, Bokeh, Altair and Folium make in Python) are kept as files under
  \`/workspace/.outputs\`, and the result has path and size: up to 20 in a run, of 32 MiB each. If a chart includes a picture, the answer shows it.
- SVG is text: \`read_file\` reads it by lines. To see it, convert it in the sandbox (\`rsvg-convert\`, CairoSVG).
- An image that is cut off is an error. The server checks the structure of the whole file, with the checksums of PNG, but decodes no pixels. So an
  image with wrong pixel data is passed on, and the client decides how to show it.`;

const WORDS = `## Text of programs and text of the server

Output of a program and content of a file follow a label on the same line, or stand between two lines of backticks (a fence). If the text itself has
three backticks, random letters follow those of the fence, so that the text cannot end it. A name that is not one plain word is a JSON string, with
escapes for invisible characters. All other text is the server's. Programs should ask for data (\`?results=structured\`), in which texts are unchanged.`;

const FEWER = `## Fewer tools

Every definition costs a client tokens in every chat. The address of the endpoint can choose tools: \`/mcp?tools=code,read_file\`. Separate names of
tools and of these sets with commas:

| set | tools |
| --- | --- |
${Object.entries(TOOL_SETS)
  .map(([set, members]) => `| \`${set}\` | ${members.map((tool) => `\`${tool}\``).join(", ")} |`)
  .join("\n")}

The server's instructions then mention only these tools, and a call of another tool is refused with the reason. So a model that was tricked cannot
call tools that its client was not given. This does not restrict people who have the token, because another address lists more tools: use scopes for
that. A wrong name is refused with a list of the valid names.

The operator's \`TOOLS\` takes the same names. Tools that it leaves out cannot be listed or called at any address, also not by the
[panel](panel.md). Without \`execute_task\` there is no \`POST /execute\` either. Files by [HTTP](rest.md#files) and [resources](resources.md) are
not tools, and stay available with their scopes. A token does not see tools that its scopes do not allow; a call of one is answered with status 403
and the missing scope.`;

const definitions = await listed();
const scopesText = ({ scopes, taskScopes }) =>
  scopes.join(", ") + (taskScopes ? `; for a task ${taskScopes.join(", ")}` : "");
const scopes = new Map(tools.map((tool) => [tool.name, scopesText(tool)]));

put("src/resources/skills.json", await publishedSkills());
put("client/tool-types.ts", toolTypes(tools));
// It calls the server through the client library, which needs the current types.
const { commandReference } = await import("../cli/docs.ts");

const pinned = new Set(definitions.map(({ name }) => `${name}.json`));
for (const definition of definitions) {
  const json = JSON.stringify(sorted(JSON.parse(JSON.stringify(definition))), null, 2);
  put(`tests/definitions/${definition.name}.json`, `${json}\n`);
}
const directory = join(root, "tests/definitions");
for (const file of existsSync(directory) ? readdirSync(directory) : []) {
  if (pinned.has(file)) continue;
  stale.push(`tests/definitions/${file}`);
  if (!check) rmSync(join(directory, file));
}

const table = definitions.map(({ name, description = "" }) => {
  const [sentence] = description.split(/(?<=\.)\s/);
  return `| \`${name}\` | ${sentence} | \`${scopes.get(name)}\` |`;
});
const readme = readFileSync(join(root, "README.md"), "utf8");
put(
  "README.md",
  between(readme, "tools", `| tool | what it does | scope |\n| --- | --- | --- |\n${table.join("\n")}`),
);

const reference = definitions.map(({ name, title, description, inputSchema }) => {
  const required = new Set(inputSchema.required ?? []);
  const rows = Object.entries(inputSchema.properties ?? {}).map(([field, property]) =>
    inputRow(field, property, required.has(field)),
  );
  const inputs =
    rows.length > 0 ? `\n\n| input | type | meaning |\n| --- | --- | --- |\n${rows.join("\n")}` : "";
  return `## \`${name}\`\n\n${title}. Scope \`${scopes.get(name)}\`.\n\n${description}${inputs}`;
});
put(
  "docs/reference/tools.md",
  `# Tools\n\nGenerated from the definitions in \`src/tools\` by \`npm run docs\`.\n\n${QUOTAS}\n\n${WORDS}\n\n${FEWER}\n\n${IMAGES}\n\n${reference.join("\n\n")}\n`,
);

const commands = readFileSync(join(root, "docs/reference/cli.md"), "utf8");
put("docs/reference/cli.md", between(commands, "commands", `\n${commandReference()}\n`));

put("docs/reference/limits.md", limitsPage());
/** The tables and keys of a database, as rows of one table. */
function schemaTable({ tables, keys }) {
  const rows = (prefix, all) =>
    Object.entries(all).map(([name, { holds, kept }]) => `| ${prefix}\`${name}\` | ${holds} | ${kept} |`);
  return [
    "| table or key | holds | kept |",
    "| --- | --- | --- |",
    ...rows("", tables),
    ...rows("key ", keys),
  ].join("\n");
}
let storage = readFileSync(join(root, "docs/internals/storage.md"), "utf8");
for (const [marker, schema] of Object.entries({
  "sandbox-tables": SANDBOX_SCHEMA,
  "account-tables": ACCOUNT_SCHEMA,
  "attempts-tables": ATTEMPTS_SCHEMA,
}))
  storage = between(storage, marker, schemaTable(schema));
put("docs/internals/storage.md", storage);

put(
  "docs/internals/reliability.md",
  withBrokenThings(readFileSync(join(root, "docs/internals/reliability.md"), "utf8")),
);

/** A row of the reference. @param {[string, import("../src/shared/variables.ts").Variable]} entry */
function variableRow([name, { docs, example, secret, fallback = "off", default: value }]) {
  const meaning = `${docs}${secret === "value" ? " Secret." : ""}${example ? ` Example: \`${example}\`.` : ""}`;
  return `| \`${name}\` | ${meaning} | ${value === undefined || Array.isArray(value) ? fallback : `\`${value}\``} |`;
}

const groups = Object.entries(GROUPS).map(([title, rows]) => {
  const lines = Object.entries(rows).filter(([, { reader }]) => reader !== "local");
  return `## ${title}\n\n| variable | meaning | without it |\n| --- | --- | --- |\n${lines.map(variableRow).join("\n")}\n`;
});
const variablesPage = readFileSync(join(root, "docs/reference/variables.md"), "utf8");
put("docs/reference/variables.md", between(variablesPage, "variables", `\n${groups.join("\n")}`));

const askedVariables = VARIABLES.filter(([, { askAtDeploy }]) => askAtDeploy !== undefined);
put(
  ".dev.vars.example",
  `# For the Deploy to Cloudflare button, which asks for these. For npm start: copy what you need into .dev.vars.\n\n${askedVariables
    .map(([name, { askAtDeploy }]) => `# ${askAtDeploy}\n${name}=\n`)
    .join("")}`,
);
const questions = Object.fromEntries(
  askedVariables.map(([name, { askAtDeploy }]) => [name, { description: askAtDeploy }]),
);
const description = readFileSync(join(root, "package.json"), "utf8");
if (!isDeepStrictEqual(JSON.parse(description).cloudflare.bindings, questions)) {
  const formattingOptions = { insertSpaces: true, tabSize: 2 };
  put(
    "package.json",
    applyEdits(
      description,
      modify(description, ["cloudflare", "bindings"], questions, { formattingOptions }),
    ),
  );
}

if (!check) {
  const bytes = Buffer.byteLength(JSON.stringify({ tools: definitions }));
  console.log(`The list of tools takes ${bytes} of ${MAX_BYTES} bytes.`);
}
if (check && stale.length > 0) {
  console.error(`Stale, run npm run docs: ${stale.join(", ")}`);
  process.exit(1);
}
