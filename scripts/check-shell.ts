/** Runs shellcheck, if it is installed, over the scripts that people call (Debian and Ubuntu: package shellcheck). */
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { root } from "../cli/program-files.ts";

const scripts = ["scripts", "cli"].flatMap((folder) =>
  readdirSync(join(root, folder))
    .filter((file) => file.endsWith(".sh"))
    .map((file) => join(folder, file)),
);
const { error, status } = spawnSync("shellcheck", scripts, { cwd: root, stdio: "inherit" });
if (error && "code" in error && error.code === "ENOENT")
  console.log("shellcheck is not installed, so the scripts are not checked.");
else if (error) throw error;
else process.exitCode = status ?? 1;
