/** Builds the bundle for Claude Desktop, `mcpb/dist/sandbox-mcp-<version>.mcpb`. It is never committed. */
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import { root } from "../cli/program-files.ts";

const output = join(root, "mcpb/dist");
const content = join(output, "bundle");

const read = (path: string) => JSON.parse(readFileSync(join(root, path), "utf8"));

rmSync(output, { recursive: true, force: true });
mkdirSync(content, { recursive: true });
await build({
  entryPoints: [join(root, "mcpb/desktop.ts")],
  outfile: join(content, "server/main.mjs"),
  bundle: true,
  platform: "node",
  target: "node20",
  format: "esm",
  // CommonJS packages load Node's modules with require.
  banner: {
    js: 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url);',
  },
  logLevel: "warning",
});
cpSync(join(root, "LICENSE"), join(content, "LICENSE"));

const definitions = join("tests", "definitions");
const tools = readdirSync(join(root, definitions)).map((file) => {
  const { name, description } = read(join(definitions, file));
  return { name, description: description.split(/(?<=\.)\s/)[0] };
});
const { version } = read("package.json");
writeFileSync(
  join(content, "manifest.json"),
  `${JSON.stringify({ ...read("mcpb/manifest.json"), version, tools }, undefined, 2)}\n`,
);

// A bundle is a zip archive with the manifest at its top.
const file = join(output, `sandbox-mcp-${version}.mcpb`);
execFileSync("python3", ["-m", "zipfile", "-c", file, ...readdirSync(content)], { cwd: content });
console.log(file);
