import { constants, existsSync, openSync, writeFileSync } from "node:fs";
import { arch, release, totalmem } from "node:os";
import { basename, dirname, join } from "node:path";
import packageJSON from "../../package.json" with { type: "json" };
import { boundResponse, fetchDirectly } from "../../client/connection.ts";
import { makeDirectories } from "../make-directories.ts";
import { messageOf } from "../../src/shared/text.ts";
import { HIDDEN_VARIABLES, OPERATOR_VARIABLES, shownValue } from "../../src/shared/variables.ts";
import { portOption, serverCommand } from "../define-command.ts";
import { validate } from "../configuration.ts";
import { localChecks } from "../machine.ts";
import { Server } from "../server-calls.ts";
import { openUserDirectory } from "../linked-paths.ts";
import { timeForName, withWriteErrors } from "../output-files.ts";
import { root } from "../program-files.ts";
import { json, line, note } from "../print.ts";
import {
  userPath,
  serverAddress,
  type ServerOptions,
  stateDirectory,
  VARIABLES_FILE,
} from "../server-address.ts";
import { readVariablesFile } from "../dev-vars.ts";
import { REPORT_NOTE } from "./texts.ts";

export const diagnose = serverCommand(
  "diagnose",
  "write a file for a bug report: versions, checks, configuration and the server's state, without secrets",
  ["diagnose", "diagnose --output report.json", "diagnose ../my-deployment"],
)
  .argument("[directory]", "the directory with wrangler.jsonc (default: the clone)")
  .option(
    "--output <path>",
    "the file to write (default: a new file in the state directory); - writes to standard output",
  )
  .addOption(portOption())
  .action(async (directoryArgument, { output, port, json: asJSON, ...options }) => {
    const stateDir = stateDirectory(options);
    const directory = directoryArgument === undefined ? root : userPath(directoryArgument);
    const bundle = redact(
      {
        program: { version: packageJSON.version, node: process.versions.node },
        machine: {
          platform: process.platform,
          release: release(),
          arch: arch(),
          memory_mib: Math.round(totalmem() / 2 ** 20),
          is_root: process.getuid?.() === 0,
        },
        checks: await localChecks(stateDir, port),
        configuration:
          directoryArgument !== undefined || existsSync(join(root, "wrangler.jsonc"))
            ? validate(directory)
            : "not a clone",
        variables: variables(),
        server: await serverState(options),
      },
      options.token,
    );
    const text = JSON.stringify(bundle, undefined, 2);
    if (output === "-") return asJSON ? json(true, bundle) : line(...text.split("\n"));
    // Not in the current directory: it may be a repository, and the report could be committed.
    const file = output ? userPath(output) : join(stateDir, "reports", `${timeForName()}.json`);
    withWriteErrors(file, () => {
      if (!output) makeDirectories(dirname(file), 0o700);
      const at = join(openUserDirectory(dirname(file), options), basename(file));
      // Code in a mounted directory may have made a link there.
      const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW;
      writeFileSync(openSync(at, flags, 0o600), `${text}\n`);
    });
    if (asJSON) return json(true, { path: file });
    line(file);
    note(REPORT_NOTE);
  });

/** The Worker's variables that are set. Shows only values that are numbers, and values of variables with a fixed set of values. */
function variables(): Record<string, string> {
  const fileVariables = readVariablesFile(VARIABLES_FILE);
  const set = OPERATOR_VARIABLES.flatMap((name): [string, string][] => {
    const value = process.env[name]?.trim() || fileVariables[name]?.trim();
    return value ? [[name, shownValue(name, value)]] : [];
  });
  return Object.fromEntries(set);
}

/** How long the server may take to report its health, in milliseconds. */
const HEALTH_MS = 30_000;

async function serverState(options: ServerOptions): Promise<object> {
  try {
    const address = serverAddress(options);
    const signal = AbortSignal.timeout(HEALTH_MS);
    const health: unknown = await boundResponse(
      await fetchDirectly(fetch, new URL("/health", address.url), { signal }),
    ).json();
    const server = await Server.connect(address);
    const { data } = await server.call("list_sandboxes");
    const tools = await server.tools();
    await server.close();
    const { sandboxes, checkpoints, ...limits } = data;
    const count = (list: unknown) => (Array.isArray(list) ? list.length : 0);
    return {
      url: address.url,
      health,
      tools,
      sandboxes: count(sandboxes),
      checkpoints: count(checkpoints),
      limits,
    };
  } catch (error) {
    return { error: messageOf(error) };
  }
}

/** Returns the bundle without the known secrets of at least eight characters. @param given the value of --token */
function redact(bundle: object, given: string | undefined): object {
  const fileVariables = readVariablesFile(VARIABLES_FILE);
  const names = [...HIDDEN_VARIABLES, "SANDBOX_MCP_TOKEN"];
  const values = names
    .flatMap((name) => [process.env[name], fileVariables[name]])
    .concat(given)
    .filter((value) => (value?.length ?? 0) >= 8);
  let text = JSON.stringify(bundle);
  for (const value of values)
    if (value) text = text.replaceAll(JSON.stringify(value).slice(1, -1), "(redacted)");
  return JSON.parse(text);
}
