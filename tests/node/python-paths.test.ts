import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { type Python, pythonPaths } from "../../local/engine/python.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

/** An installation with the layout of conda, and a link to it. */
function install(): { prefix: string; link: string; describe(prefix: string): Python } {
  const directory = temporaryDirectory();
  const [prefix, link] = [join(directory, "python-3.12"), join(directory, "python")];
  for (const part of [
    "bin",
    "lib",
    "share/zoneinfo",
    "share/terminfo",
    "share/keyrings",
    "ssl/certs",
    "ssl/private",
  ])
    mkdirSync(join(prefix, part), { recursive: true });
  const base = join(prefix, "bin/python3.12");
  writeFileSync(base, "");
  symlinkSync("python-3.12", link);
  const rest = { version: "3.12", sitePackages: [], seesSystem: true, modules: [] };
  return {
    prefix,
    link,
    describe: (path) => ({ executable: base, base, prefix: path, environment: path, ...rest }),
  };
}

it("a sandbox sees the time zones, terminals and certificates of an installation, but nothing else in `share` and `ssl`", () => {
  const { prefix, describe } = install();
  const seen = ["bin/python3.12", "lib", "ssl/certs", "share/zoneinfo", "share/terminfo"];
  expect(pythonPaths(describe(prefix))).toEqual(seen.map((path) => join(prefix, path)));
});

it("a sandbox sees the library of an installation that is behind a link, where the interpreter looks for it", () => {
  const { prefix, link, describe } = install();
  expect(pythonPaths(describe(link))).toEqual(
    expect.arrayContaining([join(prefix, "lib"), join(link, "lib")]),
  );
});
