/** Packages that npm installs at their first use, here from the test's own registry. */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { prepareAgent } from "../../local/engine/agent-packages.ts";
import { installPackages } from "../../local/engine/packages.ts";
import { endLater } from "../setup/end-later.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import { listen } from "../setup/listen.ts";

const home = temporaryDirectory();
/** The requests to the registry. */
const requestedPaths: string[] = [];

/** Makes a version of the registry's only package. */
function tarball(version: string): Buffer {
  const place = join(home, version, "package");
  mkdirSync(place, { recursive: true });
  writeFileSync(join(place, "package.json"), JSON.stringify({ name: "small", version }));
  const time = ["--mtime=@0", "--owner=0", "--group=0", "--sort=name"];
  return execFileSync("tar", [...time, "-cz", "-C", join(home, version), "package"]);
}

const TARBALLS = Object.fromEntries(["1.0.0", "2.0.0"].map((version) => [version, tarball(version)]));
const integrityOf = (version: string) =>
  `sha512-${createHash("sha512")
    .update(TARBALLS[version] ?? "")
    .digest("base64")}`;

const registry = createServer((request, response) => {
  requestedPaths.push(request.url ?? "");
  const [, version = ""] = /small-(.+)\.tgz$/.exec(request.url ?? "") ?? [];
  if (version !== "") return void response.end(TARBALLS[version]);
  const versions = Object.keys(TARBALLS).map((each) => {
    const dist = { tarball: `${address}/small-${each}.tgz`, integrity: integrityOf(each) };
    return [each, { name: "small", version: each, dist }];
  });
  response.end(JSON.stringify({ name: "small", versions: Object.fromEntries(versions) }));
});
const address = `http://127.0.0.1:${await listen(endLater(registry))}`;

let manifest: string;
let directory: string;

beforeEach(() => {
  requestedPaths.length = 0;
  manifest = mkdtempSync(join(home, "manifest-"));
  directory = join(mkdtempSync(join(home, "installed-")), "here");
  vi.stubEnv("npm_config_registry", address);
  vi.stubEnv("npm_config_cache", mkdtempSync(join(home, "cache-")));
});
afterEach(() => void vi.unstubAllEnvs());

/** Writes the manifest and its lock file. */
function pin(version: string, integrity = integrityOf(version)): void {
  const dependencies = { small: version };
  const packages = { "": { dependencies }, "node_modules/small": { version, integrity } };
  writeFileSync(join(manifest, "package.json"), JSON.stringify({ dependencies }));
  writeFileSync(join(manifest, "package-lock.json"), JSON.stringify({ lockfileVersion: 3, packages }));
}

async function install(): Promise<string[]> {
  const messages: string[] = [];
  await installPackages({ title: "Small", manifest, directory }, (line) => void messages.push(line));
  return messages;
}

const readInstalled = () =>
  JSON.parse(readFileSync(join(directory, "node_modules/small/package.json"), "utf8")).version;

it("npm installs the packages once for two simultaneous callers, with a message", async () => {
  pin("1.0.0");
  const [messages] = await Promise.all([install(), install()]);
  expect(messages).toEqual([`Installing Small with npm into ${directory}.`]);
  expect(readInstalled()).toBe("1.0.0");
  expect(requestedPaths.filter((url) => url.endsWith(".tgz"))).toEqual(["/small-1.0.0.tgz"]);
  expect(await install()).toEqual([]);
});

it("npm installs the packages again after their lock file has changed", async () => {
  pin("1.0.0");
  await install();
  pin("2.0.0");
  expect(await install()).toHaveLength(1);
  expect(readInstalled()).toBe("2.0.0");
});

it("a package is refused if the registry has other content under its version", async () => {
  pin("1.0.0", integrityOf("2.0.0"));
  await expect(install()).rejects.toThrow(/^Small could not be installed: .*integrity/i);
  expect(existsSync(join(directory, "node_modules/small"))).toBe(false);
});

it("if no registry is reachable, the error names the reason, and the next attempt can install the packages", async () => {
  pin("1.0.0");
  vi.stubEnv("npm_config_registry", "http://127.0.0.1:9");
  await expect(install()).rejects.toThrow(
    /^Small could not be installed: .*ECONNREFUSED.* Check the network .* then try again\.$/,
  );
  vi.stubEnv("npm_config_registry", address);
  await install();
  expect(readInstalled()).toBe("1.0.0");
});

it("tasks that wait for an agent share one installation and its error, and the next task tries again", async () => {
  vi.stubEnv("npm_config_registry", "http://127.0.0.1:9");
  const [agents, messages]: [string, string[]] = [mkdtempSync(join(home, "agents-")), []];
  const prepare = () =>
    prepareAgent("claude-code", { agents: [] }, agents, (line) => void messages.push(line));
  const failures = await Promise.all(Array.from({ length: 5 }, () => prepare().catch(String)));
  expect(new Set(failures).size).toBe(1);
  expect(failures[0]).toContain("Claude Code could not be installed");
  expect(messages).toHaveLength(1);
  await expect(prepare()).rejects.toThrow("Claude Code could not be installed");
  expect(messages).toHaveLength(2);
});
