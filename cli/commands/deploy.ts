import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { dataCommand } from "../define-command.ts";
import { confirm } from "../confirm.ts";
import { Deployment, isDeployable } from "../deployment.ts";
import { CommandError, EXIT } from "../exit.ts";
import { json, line, note } from "../print.ts";
import { PROGRAM, isPackaged, root } from "../program-files.ts";
import { Server } from "../server-calls.ts";
import { userPath, endpoint, type ServerAddress } from "../server-address.ts";
import { tryServer } from "./verify.ts";
import { DEPLOY, deployByOption, notDeployable, noWrangler } from "./texts.ts";

export const deploy = dataCommand(
  "deploy",
  "deploy to Cloudflare, step by step: configuration, login, secrets, image, Worker, then verify",
  [
    "deploy --dry-run",
    "deploy --preview-host preview.example.net",
    "deploy --yes --public-origin https://sandbox.example.net --json",
  ],
)
  .argument(
    "[directory]",
    "the directory with wrangler.jsonc (default: the clone; for the package, the current directory)",
  )
  .option("--dry-run", "print every step and build the Worker, but change nothing")
  .option(
    "--preview-host <host>",
    "the host below which each preview gets a name, in a DNS zone of your account",
  )
  .option("--public-origin <url>", "the public address of the server, needed for OAuth")
  .option("--yes", "start without asking")
  .option("--no-verify", "do not verify the deployed server")
  .option("--wrangler <program>", "use this wrangler instead of the clone's")
  .action(
    async (given, { dryRun = false, previewHost, publicOrigin, yes, verify, wrangler, json: asJSON }) => {
      const directory = given === undefined && !isPackaged ? root : userPath(given);
      if (!isDeployable(directory)) throw notDeployable(directory);
      const isAttended = process.stdin.isTTY && process.stderr.isTTY && !asJSON;
      if (!dryRun && !yes) {
        if (!isAttended) throw deployByOption();
        await confirm(DEPLOY.question);
      }
      const deployment = new Deployment({
        directory,
        wrangler: wrangler === undefined ? wranglerOf(directory) : [userPath(wrangler)],
        previewHost,
        publicOrigin,
        env: process.env,
        isAttended,
        isDryRun: dryRun,
        print: dryRun && !asJSON ? line : note,
      });
      await deployment.run();
      const { steps, url, token } = deployment;
      let isWell = true;
      if (verify && dryRun) {
        const step = { name: "verify", plan: `try the server: ${PROGRAM} verify <url> <token>` };
        steps.push(step);
        if (!asJSON) line(`${steps.length}. ${step.name}: ${step.plan}`);
      } else if (verify && url !== undefined && token !== undefined) {
        const checks = await verifyWhenReady(url, token);
        const failed = checks.filter(({ verdict }) => verdict === "failed");
        isWell = failed.length === 0;
        const found = isWell
          ? "all is well"
          : failed.map(({ name, found: why }) => `${name}: ${why}`).join("; ");
        steps.push({ name: "verify", plan: `try the server: ${PROGRAM} verify`, found });
        note(`${steps.length}. verify: ${found}`);
      } else if (verify) note(DEPLOY.verify(url));
      process.exitCode = isWell ? EXIT.succeeded : EXIT.failed;
      if (asJSON) return json(isWell, { dry_run: dryRun, url, token, steps });
      if (dryRun) return line(DEPLOY.unchanged);
      if (url !== undefined) line(endpoint(url));
      note(DEPLOY.connect(url));
    },
  );

/** @throws {CommandError} if wrangler is not installed */
function wranglerOf(directory: string): [string, string] {
  try {
    // A clone uses its own wrangler, because `directory` may contain only configuration. The npm package has no wrangler.
    const from = isPackaged ? join(directory, "package.json") : import.meta.url;
    const manifest = createRequire(from).resolve("wrangler/package.json");
    return [process.execPath, join(dirname(manifest), "bin/wrangler.js")];
  } catch {
    throw noWrangler(isPackaged ? directory : root);
  }
}

/** How long a new address may take to respond, in milliseconds. */
const ADDRESS_WAIT_MS = 120_000;

/** How long Cloudflare may take to distribute a new image, in milliseconds. It takes minutes after a first deployment. */
const FIRST_CONTAINER_MS = 600_000;

const PAUSE_MS = 2000;

/** Verifies the server when it responds and has started a container, or after the time limits. */
async function verifyWhenReady(url: string, token: string) {
  const deadline = Date.now() + ADDRESS_WAIT_MS;
  const isUp = () =>
    fetch(new URL("/health", url)).then(
      (response) => response.ok,
      () => false,
    );
  while (!(await isUp()) && Date.now() < deadline) await pause(PAUSE_MS);
  const address = { url: endpoint(url), token, tokenSource: "this deployment", isLocal: false };
  await waitForContainer(address);
  return tryServer(address);
}

/** Waits until a command runs in a sandbox. Also returns if no command can run: the checks then report the reason. */
async function waitForContainer(address: ServerAddress): Promise<void> {
  const deadline = Date.now() + FIRST_CONTAINER_MS;
  for (let attempts = 1; ; attempts++) {
    try {
      const server = await Server.connect(address);
      await server.call("run_command", { command: "true", sandbox: "deploy" });
      await server.call("destroy_sandbox", { sandbox: "deploy" });
      return await server.close();
    } catch (error) {
      const mayPass = error instanceof CommandError && error.kind === "refusedByServer";
      if (!mayPass || Date.now() > deadline) return;
      if (attempts === 1) note(DEPLOY.waiting(error.message));
      await pause(PAUSE_MS);
    }
  }
}
