import { buffer } from "node:stream/consumers";
import { Command, Option } from "@commander-js/extra-typings";
import { ownerToken } from "../../src/shared/env-fields.ts";
import { SCOPES, TOKEN_NAME } from "../../src/shared/principal.ts";
import { shownTime } from "../../src/shared/shown.ts";
import { dataCommand, wholeNumber } from "../define-command.ts";
import { json, line, note } from "../print.ts";
import { previousTokenEnd, newToken, rotateNamed, rotateOwner, sha256 } from "../rotation.ts";
import { VARIABLES_FILE } from "../server-address.ts";
import { readVariablesFile, readVariables, writeVariables } from "../dev-vars.ts";
import * as texts from "./texts.ts";
import { tokenGenerated, wrongOwnerToken, wrongToken } from "../texts.ts";

const show = dataCommand("show", "print the token that `npm start` uses here", ["token show"]).action(
  ({ json: asJSON }) => {
    const { token, tokenSource } = readVariables(process.env, VARIABLES_FILE);
    // The same check as the server's, because no client can connect with a token that the server refuses.
    const { error } = ownerToken.safeParse(token);
    if (error) throw wrongOwnerToken(error.issues);
    // A missing token is not an error: in `x $(sandbox-mcp token show)`, the shell runs x even if `token show` fails.
    if (tokenSource === "generated") note(tokenGenerated(VARIABLES_FILE));
    if (asJSON) json(true, { token, source: tokenSource });
    else line(token);
  },
);

const create = dataCommand("new", "generate a token and say where to put it; nothing is written", [
  "token new",
  "token new --name ci --scopes tasks:run,sandbox:read",
])
  .option(
    "--name <name>",
    "generate a token for AUTH_TOKENS, with separate sandboxes; without it, the owner's token",
  )
  .addOption(
    new Option(
      "--scopes <scopes>",
      `the token's scopes, only with --name (default: all, ${SCOPES.join(",")})`,
    ),
  )
  .action(({ name, scopes, json: asJSON }) => {
    const granted = scopes?.split(",").map((scope) => scope.trim()) ?? SCOPES;
    const unknown = granted.find((scope) => !SCOPES.some((known) => known === scope));
    if (unknown !== undefined) throw texts.unknownScope(unknown);
    if (scopes !== undefined && name === undefined) throw texts.scopesNeedName();
    const token = newToken();
    const hash = sha256(token);
    if (name === undefined) {
      if (asJSON) return json(true, { token, sha256: hash, variable: "SERVER_AUTH_TOKEN" });
      line(token);
      note(...texts.newOwnerToken(VARIABLES_FILE));
      return;
    }
    if (!TOKEN_NAME.test(name)) throw texts.wrongTokenName();
    const entry = { name, sha256: hash, scopes: granted };
    if (asJSON) return json(true, { token, sha256: hash, variable: "AUTH_TOKENS", entry });
    line(token);
    note(...texts.newNamedToken(entry));
  });

const hash = dataCommand("hash", "read a token from standard input and print its SHA-256 for AUTH_TOKENS", [
  'printf %s "$TOKEN" | sandbox-mcp token hash',
]).action(async ({ json: asJSON }) => {
  const token = String(await buffer(process.stdin)).trim();
  if (!/^[\x21-\x7e]+$/.test(token)) throw wrongToken("Standard input");
  if (asJSON) json(true, { sha256: sha256(token) });
  else line(sha256(token));
});

/** A leap year: the longest that the previous token may stay valid. */
const MAX_HOURS = 366 * 24;

const rotate = dataCommand(
  "rotate",
  "replace a token, with the old and the new one valid for a time, and print every step",
  ["token rotate", "token rotate --write", "token rotate --name ci --hours 168"],
)
  .option("--name <name>", "the token of this name in AUTH_TOKENS; without it, the owner's")
  .option("--hours <number>", "how long the current token stays valid", wholeNumber(1, MAX_HOURS), 24)
  .option("--write", "write the new variables of the local server into .dev.vars")
  .option(
    "--yes",
    "with --write: rotate even if an earlier rotation is under way; its old token ends immediately",
  )
  .action(({ name, hours, write, yes, json: asJSON }) => {
    const variable = name === undefined ? "SERVER_AUTH_TOKEN" : "AUTH_TOKENS";
    const variables = readVariablesFile(VARIABLES_FILE);
    const current = variables[variable]?.trim() || undefined;
    if (write && process.env[variable]?.trim()) throw texts.setInEnvironment(variable);
    if (write && current === undefined) throw texts.notInFile(VARIABLES_FILE, variable);
    const previousEnd = write && !yes ? previousTokenEnd(variables, name) : undefined;
    if (previousEnd !== undefined) throw texts.rotationUnderWay(previousEnd);
    const until = shownTime(Date.now() + hours * 3_600_000);
    const known = write ? current : undefined;
    const rotation = name === undefined ? rotateOwner(known, until) : rotateNamed(name, known, until);
    if (write) writeVariables(VARIABLES_FILE, rotation.variables);
    const steps = [
      ...(write ? [texts.rotationWritten(VARIABLES_FILE)] : texts.rotationSteps(rotation.variables)),
      ...texts.stepsAfterRotation(until, name),
    ];
    if (asJSON) {
      const { token } = rotation;
      const data = { token, sha256: sha256(token), until, written: write === true };
      return json(true, { ...data, variables: rotation.variables, steps });
    }
    line(rotation.token);
    for (const [index, step] of steps.entries()) note(`${index + 1}. ${step}`);
  });

export const token = new Command("token")
  .description("generate, rotate, hash or show tokens")
  .addCommand(create)
  .addCommand(rotate)
  .addCommand(hash)
  .addCommand(show);
