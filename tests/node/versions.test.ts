import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { isNewEnough } from "../../cli/node-version.ts";

function read(path: string): string {
  return readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");
}

interface Manifest {
  version: string;
  engines?: { node: string };
  dependencies?: Record<string, string>;
  devDependencies?: Record<string, string>;
}

const manifest = JSON.parse(read("package.json")) as Manifest;
const installed = { ...manifest.dependencies, ...manifest.devDependencies };
const dockerfile = read("Dockerfile");

test("the package's engines are the Node that it starts with", () => {
  expect(manifest.engines?.node).toBe("^22.15.0 || >=24.0.0");
  const starts = ["22.15.0", "22.21.1", "24.0.0", "25.1.0"];
  const refused = ["18.20.0", "20.20.2", "22.0.0", "22.14.0", "23.9.0"];
  expect([...starts, ...refused].filter((version) => isNewEnough(version))).toEqual(starts);
});

test("the image's tag is the version of the SDK", () => {
  const [, tag] = /^FROM docker\.io\/cloudflare\/sandbox:(\S+)-python$/m.exec(dockerfile) ?? [];
  expect(tag).toBe(installed["@cloudflare/sandbox"]);
});

test("the image and the local platform carry the same Claude Code", () => {
  const [, version] = /@anthropic-ai\/claude-code@(\S+)/.exec(dockerfile) ?? [];
  expect(version).toBe(installed["@anthropic-ai/claude-code"]);
});

test("the image carries the OpenCode that the documentation and a failed task have installed on the local platform", () => {
  const [, version] = /opencode-ai@(\S+)/.exec(dockerfile) ?? [];
  for (const file of ["docs/reference/tasks.md", "src/tasks/agents.ts"])
    expect(read(file)).toMatch(
      new RegExp(`npm install --no-save opencode-ai@${version?.replaceAll(".", "\\.")}["\`]`),
    );
});

test("the local runtime speaks the SDK's own capnweb", () => {
  const sdk = JSON.parse(read("node_modules/@cloudflare/sandbox/package.json")) as Manifest;
  const ours = JSON.parse(read("node_modules/capnweb/package.json")) as Manifest;
  const [, wanted = "none"] = /^\^(\d+\.\d+)\./.exec(sdk.dependencies?.capnweb ?? "") ?? [];
  expect(ours.version.startsWith(`${wanted}.`)).toBe(true);
  expect(installed.capnweb).toBe(ours.version);
});

test("agents' exact peers are what is installed", () => {
  const agents = JSON.parse(read("node_modules/agents/package.json")) as {
    peerDependencies: Record<string, string>;
  };
  for (const name of [
    "@modelcontextprotocol/server",
    "@modelcontextprotocol/client",
    "@modelcontextprotocol/sdk",
  ])
    expect(installed[name], name).toBe(agents.peerDependencies[name]);
});

test("the lock file names no download address", () => {
  expect(read("package-lock.json")).not.toMatch(/"resolved": "https?:/);
});
