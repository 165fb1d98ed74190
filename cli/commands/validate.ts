import { existsSync } from "node:fs";
import { report } from "../checks.ts";
import { dataCommand } from "../define-command.ts";
import { validate as checksOf } from "../configuration.ts";
import { isPackaged, root } from "../program-files.ts";
import { userPath } from "../server-address.ts";

export const validate = dataCommand(
  "validate",
  "check the configuration of a deployment for common mistakes, and name the line to change",
  ["validate", "validate ../my-deployment --json"],
)
  .argument(
    "[directory]",
    "the directory of wrangler.jsonc; by default this directory, or the clone if this directory lacks that file",
  )
  .action((given, { json: asJSON }) => {
    const here = isPackaged || existsSync(userPath("wrangler.jsonc")) ? userPath() : root;
    report(checksOf(given === undefined ? here : userPath(given)), asJSON === true);
  });
