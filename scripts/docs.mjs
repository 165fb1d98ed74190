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

/** What the plain list of tools may take, as tests/worker/tools/kit.test.ts has it. */
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

const QUOTAS = `Limits are those of a principal: sandboxes, runs at once, and seconds of running on a day (UTC), of which a run over
midnight takes on either day what it ran there. Processes that a command leaves in the background outlive its run, count
in neither of the last two and end with the sandbox:
[security.md](../internals/security.md#what-the-quotas-count-and-what-they-do-not).`;

const IMAGES = `## Images

\`run_code\`, \`read_file\` and artifacts of tasks show images of the same kinds: PNG, JPEG, GIF and WebP, by their content and
not by their name. A line of text beside each has its name and its size in pixels. Some clients and models end a chat over an
image that is too large or broken, so:

- An image of up to 1.15 million pixels, 8,000 on a side and 700 KiB is passed on byte for byte. The sandbox makes a larger one
  smaller, with Pillow: its proportions stay, it is turned upright by its EXIF data, transparent parts become white, and of an
  animation the first frame is shown. The result is PNG or JPEG, whichever has fewer bytes: a plot mostly stays PNG. The
  line of text has both sizes. \`run_code\` keeps the originals of up to 20 images of a run under \`/workspace/.outputs\`, with a link.
- A file may have 8 MiB, an image of a result 6 MiB, and either up to 100 million pixels. Making one smaller may take 20
  seconds and 1 GiB of memory. For an image beyond that the error has its size and says what to do.
- Where a sandbox has no Pillow, the answer describes the image and says how to install it: \`pip install pillow\`. Images that need
  not be made smaller are shown all the same. An artifact of a task whose sandbox has stopped is only described, with a link, if it is too large.
- \`/mcp?images=off\` leaves all images out, for clients and models that take none. The line of text stays, and says how to get the image.
- Charts for a browser (HTML with a script, as Plotly, Bokeh, Altair and Folium make in Python) are kept as files under
  \`/workspace/.outputs\`, and the result has path and size: 20 of a run, 32 MiB each. Where they have a picture it is shown.
- SVG is text: \`read_file\` reads it by lines. To see it, convert it in the sandbox (\`rsvg-convert\`, CairoSVG).
- An image that is cut off is an error in words. The server follows the structure of a file to its end, with the checksums of PNG,
  and decodes no pixels: an image that fits and whose coded data is wrong in itself is shown, and how it looks is up to the client.`;

const WORDS = `## Whose words are whose

What a program printed, or a file holds, stands behind its label on one line, or between two lines of backticks. Where it has three
backticks itself, random letters follow those of the fence, which nothing that was printed before can know. A name that is more than
one plain word is written as a string of JSON, and what no font shows as its escape. Everything else is the server's. Programs ask for
data (\`?results=structured\`), where texts are as they are.`;

const FEWER = `## Fewer tools

Every definition costs a client tokens in every chat. The address of the endpoint says which it needs:
\`/mcp?tools=code,read_file\` lists what it names, with commas between names of tools and of these sets:

| set | tools |
| --- | --- |
${Object.entries(TOOL_SETS)
  .map(([set, members]) => `| \`${set}\` | ${members.map((tool) => `\`${tool}\``).join(", ")} |`)
  .join("\n")}

The server's instructions then speak of no other tools. A call of a tool that is left out is refused, with the reason: a model
that was talked into it cannot call what its client was not given. It is no wall against who holds the token, since
another address lists more: that is what scopes are for. A wrong name is refused with the names that there are.

The operator's \`TOOLS\` takes the same words. What it leaves out is neither listed nor called at any address, the [panel](panel.md)'s included, and without
\`execute_task\` there is no \`POST /execute\` either; files by [HTTP](rest.md#files) and [resources](resources.md) are no tools, and open to
who has their scopes. A tool that the scopes of a token never allow is not listed to it; a call of one is answered with
status 403 and the scope that it needs.`;

const definitions = await listed();
const scopesText = ({ scopes, taskScopes }) =>
  scopes.join(", ") + (taskScopes ? `; for a task ${taskScopes.join(", ")}` : "");
const scopes = new Map(tools.map((tool) => [tool.name, scopesText(tool)]));

put("src/resources/skills.json", await publishedSkills());
put("client/tool-types.ts", toolTypes(tools));
// It calls the server through the client library, which needs the types of now.
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

const asked = VARIABLES.filter(([, { askAtDeploy }]) => askAtDeploy !== undefined);
put(
  ".dev.vars.example",
  `# For the Deploy to Cloudflare button, which asks for these. For npm start: copy what you need into .dev.vars.\n\n${asked
    .map(([name, { askAtDeploy }]) => `# ${askAtDeploy}\n${name}=\n`)
    .join("")}`,
);
const questions = Object.fromEntries(
  asked.map(([name, { askAtDeploy }]) => [name, { description: askAtDeploy }]),
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
