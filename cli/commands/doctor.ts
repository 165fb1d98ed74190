/** `sandbox-mcp doctor`: whether this machine has what it takes. */
import { report } from "../checks.ts";
import { dataCommand, portOption } from "../command.ts";
import { deployChecks, localChecks } from "../machine.ts";
import { stateDirectory } from "../server.ts";

export const doctor = dataCommand(
  "doctor",
  "check what this machine needs to run a server, and to deploy one",
  ["doctor", "doctor --deploy --json"],
)
  .option("--deploy", "what a deployment needs, too: Docker, and wrangler's login (which asks Cloudflare)")
  .addOption(portOption())
  .option("--state-dir <path>", "its state directory, else SANDBOX_MCP_STATE_DIR")
  .action(async ({ deploy, port, json: asJSON, ...options }) => {
    const checks = await localChecks(stateDirectory(options), port);
    if (deploy) checks.push(...(await deployChecks()));
    report(checks, asJSON === true);
  });
