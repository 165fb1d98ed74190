/** The Worker's variables: from the environment, then from `.dev.vars`, where a generated token is kept. */
import { randomBytes } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { parseEnv } from "node:util";
import { SDK_VARIABLES, VARIABLES } from "../src/shared/variables.ts";
import { UserError } from "./errors.ts";
import { messageOf } from "../src/shared/text.ts";

const NAMES: readonly string[] = [...VARIABLES, ...SDK_VARIABLES];

export interface Variables {
  /** Given to the Worker over its configuration file. */
  values: Record<string, string>;
  token: string;
  /** Where `token` comes from. */
  tokenSource: "environment" | "file" | "generated";
}

/**
 * @param file The `.dev.vars`. Written only when no token is set anywhere; its other lines are kept.
 * @throws {UserError} when the file cannot be read or written
 */
export function readVariables(env: Readonly<Record<string, string | undefined>>, file: string): Variables {
  const kept = keptVariables(file);
  const values: Record<string, string> = { ...kept };
  for (const name of NAMES) {
    const value = env[name];
    if (value !== undefined && value.trim() !== "") values[name] = value;
  }
  const given = values.SERVER_AUTH_TOKEN?.trim();
  if (given) {
    return { values, token: given, tokenSource: env.SERVER_AUTH_TOKEN?.trim() ? "environment" : "file" };
  }
  const token = randomBytes(32).toString("base64url");
  keep(file, token);
  return { values: { ...values, SERVER_AUTH_TOKEN: token }, token, tokenSource: "generated" };
}

/** Removes the Worker's variables, some of which are secrets, from the environment that child processes inherit. */
export function forgetVariables(env: NodeJS.ProcessEnv): void {
  for (const name of NAMES) delete env[name];
}

/** What a `.dev.vars` holds. @throws {UserError} when it cannot be read */
export function keptVariables(file: string): Record<string, string> {
  if (!existsSync(file)) return {};
  try {
    const entries = Object.entries(parseEnv(readFileSync(file, "utf8")));
    return Object.fromEntries(entries.filter((entry): entry is [string, string] => entry[1] !== undefined));
  } catch (error) {
    throw new UserError(`${file} cannot be read: ${messageOf(error)}`);
  }
}

/** Fills an empty SERVER_AUTH_TOKEN line, or adds one. Atomic: after a crash, the old file is still there. */
function keep(file: string, token: string): void {
  try {
    const before = existsSync(file) ? readFileSync(file, "utf8") : "";
    const lines = before.split("\n").filter((line) => !/^\s*(export\s+)?SERVER_AUTH_TOKEN\s*=/.test(line));
    const rest = lines.join("\n").trimEnd();
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    const temporary = `${file}.${process.pid}`;
    writeFileSync(temporary, `${rest === "" ? "" : `${rest}\n`}SERVER_AUTH_TOKEN=${token}\n`, {
      mode: 0o600,
    });
    chmodSync(temporary, 0o600);
    renameSync(temporary, file);
  } catch (error) {
    throw new UserError(
      `The token cannot be kept in ${file}: ${messageOf(error)}. Set SERVER_AUTH_TOKEN instead.`,
    );
  }
}
