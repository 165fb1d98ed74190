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
    "the directory with wrangler.jsonc (default: the current directory, or the clone if the current directory lacks this file)",
  )
  .action((given, { json: asJSON }) => {
    const here = isPackaged || existsSync(userPath("wrangler.jsonc")) ? userPath() : root;
    report(checksOf(given === undefined ? here : userPath(given)), asJSON === true);
  });
