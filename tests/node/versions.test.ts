/** Versions and the owner's name are the same in all files that contain them, and the installed SDK has what the server relies on. */
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import { VARIABLES } from "../../src/shared/variables.ts";
import { repository } from "../../local/engine/own-files.ts";
import { isNewEnough } from "../../cli/node-version.ts";
import { LANGUAGE_FACTS } from "../setup/languages.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const read = (path: string) => readFileSync(join(repository, path), "utf8");
const manifest = JSON.parse(read("package.json"));
const dockerfile = read("Dockerfile");

test("the package's engines field names the Node version that it starts with", () => {
  expect(manifest.engines.node).toBe("^22.15.0 || >=24.0.0");
  const starts = ["22.15.0", "22.21.1", "24.0.0", "25.1.0"];
  const refused = ["18.20.0", "20.20.2", "22.0.0", "22.14.0", "23.9.0"];
  expect([...starts, ...refused].filter((version) => isNewEnough(version))).toEqual(starts);
});

const SDK = "@cloudflare/sandbox";
const registry = JSON.parse(read("server.json"));
const plugin = JSON.parse(read("plugin/.claude-plugin/plugin.json"));
const worker = JSON.parse(read("src/package.json"));
const claude = JSON.parse(read("local/agents/claude-code/package.json"));
const [, sdkTag] = /^FROM docker\.io\/cloudflare\/sandbox:(\S+)-python$/m.exec(dockerfile) ?? [];
const [, claudeVersion] = /@anthropic-ai\/claude-code@(\S+)/.exec(dockerfile) ?? [];

test.each([
  [
    "the package, the registry and the plugin",
    [manifest, registry, ...registry.packages, plugin].map(({ version }) => version),
  ],
  ["the SDK", [manifest.devDependencies[SDK], worker.dependencies[SDK], sdkTag]],
  ["Claude Code", [claudeVersion, ...Object.values(claude.optionalDependencies)]],
])("all files have the same version of %s", (_what, versions) => {
  expect([...new Set(versions)]).toEqual([expect.stringMatching(/^\d+\.\d+\.\d+/)]);
});

test("the image has one spare kernel of Python and JavaScript, by the names of variables that the SDK's image sets", () => {
  const sizesIn = (text: string) =>
    Object.fromEntries(text.matchAll(/\b(\w+_POOL_MIN_SIZE)=(\d)/g).map(([, name, size]) => [name, size]));
  expect(Object.values(sizesIn(dockerfile))).toEqual(["1", "1", "0"]);
  const known = sizesIn(read(`node_modules/${SDK}/Dockerfile`));
  expect(Object.keys(sizesIn(dockerfile))).toEqual(Object.keys(known));
});

test("the image has the programs of all kernels", () => {
  for (const { inImage } of Object.values(LANGUAGE_FACTS)) expect(dockerfile).toMatch(inImage);
});

test("the installed SDK knows the server's variables, and has the messages by which the server recognizes errors", () => {
  const dist = `node_modules/${SDK}/dist`;
  const files = readdirSync(join(repository, dist)).filter((file) => file.endsWith(".js"));
  const text = files.map((file) => read(join(dist, file))).join("\n");
  const [, set] = /TRUST_INTERCEPTION = "(\w+)"/.exec(read("src/actors/platform/platform.ts")) ?? [];
  const readBySDK = VARIABLES.flatMap(([name, { reader }]) => (reader === "sdk" ? [name] : []));
  expect([set ?? "no variable found", ...readBySDK].filter((name) => !text.includes(name))).toEqual([]);
  // "Failed to create code context" is a message of the image, whose programs are not in the package.
  const messages = [
    "Container failed to start",
    "container is not listening",
    "no such image",
    "no application that matches",
    "no container application",
  ];
  const recognized = read("src/actors/platform/sdk-errors.ts");
  expect(messages.filter((message) => !recognized.includes(message))).toEqual([]);
  expect(messages.filter((message) => !text.toLowerCase().includes(message.toLowerCase()))).toEqual([]);
});

interface Locked {
  link?: boolean;
  resolved?: string;
  integrity?: string;
}

test.each(["", "tests/clients/", "local/agents/claude-code/"])(
  "%spackage-lock.json contains a hash of each package, and no download address",
  (directory) => {
    const packages: Record<string, Locked> = JSON.parse(read(`${directory}package-lock.json`)).packages;
    const fetched = Object.entries(packages).filter(
      ([path, { link }]) => path.startsWith("node_modules/") && !link,
    );
    expect(fetched.length).toBeGreaterThan(0);
    expect(fetched.filter(([, { resolved, integrity }]) => resolved || !integrity)).toEqual([]);
  },
);

test("npm publish fails until scripts/owner.ts has written the owner's name into every file that needs it", () => {
  expect(manifest.scripts.prepublishOnly).toBe("node scripts/owner.ts --check");
  const copy = temporaryDirectory();
  cpSync(join(repository, "scripts/owner.ts"), join(copy, "scripts/owner.ts"));
  const files = ["package.json", "server.json", "README.md", "docs/start/quick-start.md"];
  // A clone that was published before already has the name.
  for (const file of files) {
    mkdirSync(dirname(join(copy, file)), { recursive: true });
    const text = read(file).replace(/(io\.github\.|github\.com\/)[\w-]+(?=\/sandbox-mcp\b)/g, "$1OWNER");
    writeFileSync(join(copy, file), text);
  }
  const statuses = ["--check", "no name", "acme", "--check"].map(
    (word) => spawnSync(process.execPath, [join(copy, "scripts/owner.ts"), word]).status,
  );
  expect(statuses).toEqual([1, 64, 0, 0]);
  for (const file of files) {
    const text = readFileSync(join(copy, file), "utf8");
    expect(text).toMatch(/(io\.github\.|github\.com\/)acme\/sandbox-mcp/);
    expect(text).not.toContain("OWNER/");
  }
});
