/** Versions and the owner's name are the same in all files that contain them. */
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import { VARIABLES } from "../../src/shared/variables.ts";
import { repository } from "../../local/engine/own-files.ts";
import { isNewEnough } from "../../cli/node-version.ts";
import { LANGUAGE_FACTS } from "../setup/languages.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

function read(path: string): string {
  return readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");
}

interface Manifest {
  version: string;
  engines?: { node: string };
  dependencies?: Record<string, string>;
  devDependencies?: Record<string, string>;
  optionalDependencies?: Record<string, string>;
}

const manifest = JSON.parse(read("package.json")) as Manifest;
const worker = JSON.parse(read("src/package.json")) as Manifest;
const claude = JSON.parse(read("local/agents/claude-code/package.json")) as Manifest;
const installed = { ...worker.dependencies, ...manifest.dependencies };
const dockerfile = read("Dockerfile");

const CLAUDE_LOCK = "local/agents/claude-code/package-lock.json";

interface Locked {
  link?: boolean;
  resolved?: string;
  integrity?: string;
}

test("the package's engines field names the Node version that it starts with", () => {
  expect(manifest.engines?.node).toBe("^22.15.0 || >=24.0.0");
  const starts = ["22.15.0", "22.21.1", "24.0.0", "25.1.0"];
  const refused = ["18.20.0", "20.20.2", "22.0.0", "22.14.0", "23.9.0"];
  expect([...starts, ...refused].filter((version) => isNewEnough(version))).toEqual(starts);
});

test("the manifests of the package, the registry and the plugin have the same version", () => {
  const registry = JSON.parse(read("server.json")) as Manifest & { packages: Manifest[] };
  const plugin = JSON.parse(read("plugin/.claude-plugin/plugin.json")) as Manifest;
  const others = [registry, ...registry.packages, plugin];
  expect(new Set(others.map(({ version }) => version))).toEqual(new Set([manifest.version]));
});

test("both manifests and the image's tag have the same version of the SDK", () => {
  const [, tag] = /^FROM docker\.io\/cloudflare\/sandbox:(\S+)-python$/m.exec(dockerfile) ?? [];
  const name = "@cloudflare/sandbox";
  expect([manifest.devDependencies?.[name], tag]).toEqual(Array(2).fill(installed[name]));
});

test("the image has one spare kernel of Python and JavaScript, by the names of variables that the SDK's image sets", () => {
  const sizesIn = (text: string) =>
    Object.fromEntries(text.matchAll(/\b(\w+_POOL_MIN_SIZE)=(\d)/g).map(([, name, size]) => [name, size]));
  expect(Object.values(sizesIn(dockerfile))).toEqual(["1", "1", "0"]);
  const known = sizesIn(read("node_modules/@cloudflare/sandbox/Dockerfile"));
  expect(Object.keys(sizesIn(dockerfile))).toEqual(Object.keys(known));
});

test.each(Object.entries(LANGUAGE_FACTS))("the image has the program of %s kernels", (_language, facts) => {
  expect(dockerfile).toMatch(facts.inImage);
});

const SDK_FOLDER = "node_modules/@cloudflare/sandbox/dist";
const sdkText = readdirSync(new URL(`../../${SDK_FOLDER}`, import.meta.url))
  .filter((file) => file.endsWith(".js"))
  .map((file) => read(`${SDK_FOLDER}/${file}`))
  .join("\n");

const readBySDK = VARIABLES.flatMap(([name, { reader }]) => (reader === "sdk" ? [name] : []));

const [, setByServer = "no variable found"] =
  /TRUST_INTERCEPTION = "(\w+)"/.exec(read("src/actors/platform/platform.ts")) ?? [];

test.each([...readBySDK, setByServer])("the installed SDK knows the variable %s", (name) => {
  expect(sdkText).toContain(name);
});

// "Failed to create code context" is a message of the image, whose programs are not in the package.
test.each([
  "Container failed to start",
  "container is not listening",
  "no such image",
  "no application that matches",
  "no container application",
])("the installed SDK has the message by which the server recognizes an error: %s", (message) => {
  expect(sdkText.toLowerCase().includes(message.toLowerCase())).toBe(true);
  expect(read("src/actors/platform/sdk-errors.ts").includes(message)).toBe(true);
});

test("the image and the local platform have the same version of Claude Code", () => {
  const [, version] = /@anthropic-ai\/claude-code@(\S+)/.exec(dockerfile) ?? [];
  expect(new Set(Object.values(claude.optionalDependencies ?? {}))).toEqual(new Set([version]));
});

const LOCKS = ["package-lock.json", "tests/clients/package-lock.json", CLAUDE_LOCK];

test.each(LOCKS)("%s contains a hash of each package, and no download address", (file) => {
  const { packages } = JSON.parse(read(file)) as { packages: Record<string, Locked> };
  const fetched = Object.entries(packages).filter(
    ([path, { link }]) => path.startsWith("node_modules/") && !link,
  );
  expect(fetched.length).toBeGreaterThan(0);
  expect(fetched.filter(([, { resolved, integrity }]) => resolved || !integrity)).toEqual([]);
});

const FILES = ["package.json", "server.json", "README.md", "docs/start/quick-start.md"];

const copy = temporaryDirectory();

cpSync(join(repository, "scripts/owner.ts"), join(copy, "scripts/owner.ts"));
// A clone that was published before already has the name.
for (const file of FILES) {
  const text = read(file);
  mkdirSync(dirname(join(copy, file)), { recursive: true });
  writeFileSync(
    join(copy, file),
    text.replace(/(io\.github\.|github\.com\/)[\w-]+(?=\/sandbox-mcp\b)/g, "$1OWNER"),
  );
}

function owner(word: string): number | null {
  return spawnSync(process.execPath, [join(copy, "scripts/owner.ts"), word]).status;
}

test("npm publish fails until the owner's name is set", () => {
  const { scripts } = JSON.parse(read("package.json"));
  expect(scripts.prepublishOnly).toBe("node scripts/owner.ts --check");
  expect(owner("--check")).toBe(1);
});

test("scripts/owner.ts writes the owner's name into every file that needs it", () => {
  expect(owner("no name")).toBe(64);
  expect(owner("acme")).toBe(0);
  expect(owner("--check")).toBe(0);
  for (const file of FILES) {
    const text = readFileSync(join(copy, file), "utf8");
    expect(text).toMatch(/(io\.github\.|github\.com\/)acme\/sandbox-mcp/);
    expect(text).not.toContain("OWNER/");
  }
});
