import { report } from "../checks.ts";
import { dataCommand, portOption, stateOption } from "../define-command.ts";
import { deployChecks, localChecks } from "../machine.ts";
import { stateDirectory } from "../server-address.ts";

export const doctor = dataCommand("doctor", "check whether this machine can run and deploy a server", [
  "doctor",
  "doctor --deploy --json",
])
  .option("--deploy", "also check what a deployment needs: Docker, and wrangler's login (asks Cloudflare)")
  .addOption(portOption())
  .addOption(stateOption())
  .action(async ({ deploy, port, json: asJSON, ...options }) => {
    const checks = await localChecks(stateDirectory(options), port);
    if (deploy) checks.push(...(await deployChecks()));
    report(checks, asJSON === true);
  });
