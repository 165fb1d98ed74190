/** `sandbox-mcp validate`: whether a deployment's configuration has one of the classic mistakes. */
import { existsSync } from "node:fs";
import { report } from "../checks.ts";
import { dataCommand } from "../command.ts";
import { validate as checksOf } from "../configuration.ts";
import { isPackaged, root } from "../places.ts";
import { userPath } from "../server.ts";

export const validate = dataCommand(
  "validate",
  "look for the classic mistakes in the configuration of a deployment, each with the line to change",
  ["validate", "validate ../my-deployment --json"],
)
  .argument("[directory]", "that of wrangler.jsonc, else this one, or the clone where this one has none")
  .action((given, { json: asJSON }) => {
    const here = isPackaged || existsSync(userPath("wrangler.jsonc")) ? userPath() : root;
    report(checksOf(given === undefined ? here : userPath(given)), asJSON === true);
  });
