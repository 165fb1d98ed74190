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

test("the lock file names no download address", () => {
  expect(read("package-lock.json")).not.toMatch(/"resolved": "https?:/);
});
