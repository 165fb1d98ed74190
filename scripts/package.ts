/**
 * Builds the content of the npm package into `dist`, which is never committed. `npm pack` runs this first.
 *
 * The modules keep their relative paths, so that they find each other as in a clone. The package contains the built Worker,
 * because it does not contain the Worker's sources.
 */
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, extname, join } from "node:path";
import { BUILT, SETTINGS, bundle } from "../cli/bundle.ts";
import { bundleForPackage } from "./bundle-sandboxd.ts";
import { root } from "../cli/program-files.ts";

const dist = join(root, "dist");

/** Folders with files that the modules read or start by path. */
const ASSETS = ["cli", "container", "local/engine", "local/runtime"];
const ASSET_KINDS = new Set([".sh", ".py", ".pl", ".cjs"]);

rmSync(dist, { recursive: true, force: true });
for (const config of ["tsconfig.package.json", "tsconfig.client.json"])
  execFileSync("tsc", ["-p", join(root, config), "--noEmit", "false"], { stdio: "inherit" });

for (const folder of ASSETS)
  cpSync(join(root, folder), join(dist, folder), {
    recursive: true,
    filter: (from) => {
      const name = basename(from);
      if (name === "dist" || name === "__pycache__") return false;
      return extname(name) === "" || ASSET_KINDS.has(extname(name));
    },
  });

// npm installs Claude Code with these files.
for (const file of ["package.json", "package-lock.json"]) {
  const place = join("local/agents/claude-code", file);
  cpSync(join(root, place), join(dist, place));
}

await bundleForPackage(dist);

const config = "wrangler.local.jsonc";
mkdirSync(join(dist, BUILT), { recursive: true });
const { modules, settings: built } = await bundle(join(root, config), join(root, ".wrangler/package"));
const main = modules[0]?.path ?? "";
for (const { path, contents } of modules) writeFileSync(join(dist, BUILT, basename(path)), contents);
writeFileSync(join(dist, BUILT, SETTINGS), JSON.stringify(built));
const settings = readFileSync(join(root, config), "utf8");
writeFileSync(
  join(dist, config),
  settings.replace(/"main": "[^"]+"/, `"main": "${join(BUILT, basename(main))}"`),
);
