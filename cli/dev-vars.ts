/** The Worker's variables: from the environment, then from `.dev.vars`, which also stores a generated token. */
import { existsSync, readFileSync } from "node:fs";
import { dirname } from "node:path";
import { isDeepStrictEqual, parseEnv } from "node:util";
import { makeDirectories } from "./make-directories.ts";
import { replaceFile } from "./output-files.ts";
import { newToken } from "./rotation.ts";
import { OPERATOR_VARIABLES } from "../src/shared/variables.ts";
import { tokenNotKept, variablesUnchangeable, variablesUnreadable } from "./texts.ts";

export interface Variables {
  /** Variables that override the variables of the Worker's configuration file. */
  values: Record<string, string>;
  token: string;
  tokenSource: "environment" | "file" | "generated";
}

/**
 * @param file the `.dev.vars`; written only if no token is set
 * @throws {UserError} if it cannot be read or written
 */
export function readVariables(env: Readonly<Record<string, string | undefined>>, file: string): Variables {
  const fileValues = readVariablesFile(file);
  const values: Record<string, string> = { ...fileValues };
  for (const name of OPERATOR_VARIABLES) {
    const value = env[name];
    if (value !== undefined && value.trim() !== "") values[name] = value;
  }
  const givenToken = values.SERVER_AUTH_TOKEN?.trim();
  if (givenToken) {
    return { values, token: givenToken, tokenSource: env.SERVER_AUTH_TOKEN?.trim() ? "environment" : "file" };
  }
  const token = newToken();
  saveToken(file, token);
  return { values: { ...values, SERVER_AUTH_TOKEN: token }, token, tokenSource: "generated" };
}

/** Removes the Worker's variables, some of them secrets, so that child processes do not inherit them. */
export function forgetVariables(env: NodeJS.ProcessEnv): void {
  for (const name of OPERATOR_VARIABLES) delete env[name];
}

/** The variables in a `.dev.vars`. @throws {UserError} if it cannot be read */
export function readVariablesFile(file: string): Record<string, string> {
  if (!existsSync(file)) return {};
  try {
    const entries = Object.entries(parseEnv(readFileSync(file, "utf8")));
    return Object.fromEntries(entries.filter((entry): entry is [string, string] => entry[1] !== undefined));
  } catch (error) {
    throw variablesUnreadable(file, error);
  }
}

/** Changes variables in a `.dev.vars`; undefined removes a variable. @throws {UserError} if other variables would change, too */
export function writeVariables(file: string, changes: Readonly<Record<string, string | undefined>>): void {
  const before = existsSync(file) ? readFileSync(file, "utf8") : "";
  const names = Object.keys(changes);
  const lines = before
    .split("\n")
    .filter((line) => !names.some((name) => new RegExp(`^\\s*(export\\s+)?${name}\\s*=`).test(line)));
  const newLines = Object.entries(changes).flatMap(([name, value]) =>
    value === undefined ? [] : `${name}=${/^[\w.:-]+$/.test(value) ? value : `'${value}'`}`,
  );
  const after = [...lines.join("\n").trimEnd().split("\n"), ...newLines]
    .filter((line) => line !== "")
    .join("\n");
  const known = parseEnv(before);
  const expected = Object.entries({ ...known, ...changes }).filter(([, value]) => value !== undefined);
  const isSafe =
    // Only the first line of a multi-line value would be replaced.
    names.every((name) => !known[name]?.includes("\n")) &&
    isDeepStrictEqual({ ...parseEnv(after) }, Object.fromEntries(expected));
  if (!isSafe) throw variablesUnchangeable(file, names);
  makeDirectories(dirname(file), 0o700);
  replaceFile(file, `${after}\n`);
}

function saveToken(file: string, token: string): void {
  try {
    writeVariables(file, { SERVER_AUTH_TOKEN: token });
  } catch (error) {
    throw tokenNotKept(file, error);
  }
}
