/** `sandbox-mcp token`: tokens, their hashes, and where to put them. */
import { Command, Option } from "@commander-js/extra-typings";
import { ownerToken } from "../../src/shared/env-fields.ts";
import { SCOPES, TOKEN_NAME } from "../../src/shared/principal.ts";
import { dataCommand, wholeNumber } from "../define-command.ts";
import { CommandError } from "../exit.ts";
import { json, line, note } from "../print.ts";
import { endOfBefore, newToken, rotateNamed, rotateOwner, type Rotation, sha256 } from "../rotation.ts";
import { PROGRAM, VARIABLES_FILE } from "../server-address.ts";
import { keptVariables, readVariables, writeVariables } from "../variables.ts";
import { startLine } from "../program-files.ts";

const show = dataCommand("show", "print the token that `npm start` uses here", ["token show"]).action(
  ({ json: asJSON }) => {
    const { token, tokenSource } = readVariables(process.env, VARIABLES_FILE);
    const { error } = ownerToken.safeParse(token);
    if (error)
      throw new CommandError(
        "failed",
        `SERVER_AUTH_TOKEN ${error.issues.map(({ message }) => message).join("; ")}.`,
      );
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
    "generate a token for AUTH_TOKENS, with sandboxes of its own; without it, the owner's token",
  )
  .addOption(
    new Option("--scopes <scopes>", `what the one of --name allows, else all of ${SCOPES.join(",")}`),
  )
  .action(({ name, scopes, json: asJSON }) => {
    const granted = scopes?.split(",").map((scope) => scope.trim()) ?? SCOPES;
    const unknown = granted.find((scope) => !SCOPES.some((known) => known === scope));
    if (unknown !== undefined)
      throw new CommandError("usage", `--scopes has "${unknown}", which is not one of ${SCOPES.join(", ")}.`);
    if (scopes !== undefined && name === undefined)
      throw new CommandError("usage", "--scopes needs --name: the owner's token allows everything.");
    const token = newToken();
    const hash = sha256(token);
    if (name === undefined) {
      if (asJSON) return json(true, { token, sha256: hash, variable: "SERVER_AUTH_TOKEN" });
      line(token);
      note(
        `The new owner's token. The old one ends with the change; \`${PROGRAM} token rotate\` keeps both valid for a time:`,
      );
      note("  on Cloudflare  npx wrangler secret put SERVER_AUTH_TOKEN");
      note(`  ${startLine().padEnd(13)}  SERVER_AUTH_TOKEN=... in ${VARIABLES_FILE}, then start it again`);
      return;
    }
    if (!TOKEN_NAME.test(name)) throw new CommandError("usage", "--name must be 1 to 32 of a-z, 0-9 and -.");
    const entry = { name, sha256: hash, scopes: granted };
    if (asJSON) return json(true, { token, sha256: hash, variable: "AUTH_TOKENS", entry });
    line(token);
    note(
      "The server gets its hash, as an element of the list AUTH_TOKENS (a secret on Cloudflare, .dev.vars locally):",
    );
    note(`  ${JSON.stringify(entry)}`);
  });

const hash = dataCommand("hash", "read a token from standard input and print its SHA-256 for AUTH_TOKENS", [
  'printf %s "$TOKEN" | sandbox-mcp token hash',
]).action(async ({ json: asJSON }) => {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  const token = Buffer.concat(chunks).toString("utf8").trim();
  if (!/^[\x21-\x7e]+$/.test(token))
    throw new CommandError("usage", "Standard input holds no token: visible ASCII without spaces.");
  if (asJSON) json(true, { sha256: sha256(token) });
  else line(sha256(token));
});

/** When the previous token ends, to the second, for people. */
const endAfter = (hours: number) =>
  new Date(Date.now() + hours * 3_600_000).toISOString().replace(/\.\d+Z$/, "Z");

/** A year: the longest that the previous token may stay valid. */
const MAX_HOURS = 8784;

const rotate = dataCommand(
  "rotate",
  "replace a token while both stay valid for a time, and print every step",
  ["token rotate", "token rotate --write", "token rotate --name ci --hours 168"],
)
  .option("--name <name>", "the token of this name in AUTH_TOKENS; without it, the owner's")
  .option("--hours <number>", "how long the current token stays valid", wholeNumber(1, MAX_HOURS), 24)
  .option("--write", "write the new variables of the local server into .dev.vars")
  .option(
    "--yes",
    "with --write: start although an earlier rotation is under way; its old token ends at once",
  )
  .action(({ name, hours, write, yes, json: asJSON }) => {
    const variable = name === undefined ? "SERVER_AUTH_TOKEN" : "AUTH_TOKENS";
    const variables = keptVariables(VARIABLES_FILE);
    const kept = variables[variable]?.trim() || undefined;
    if (write && process.env[variable]?.trim())
      throw new CommandError(
        "usage",
        `${variable} is set in the environment, where it has to be changed: leave --write out.`,
      );
    if (write && kept === undefined)
      throw new CommandError("unavailable", `${VARIABLES_FILE} has no ${variable}.`);
    const valid = write && !yes ? endOfBefore(variables, name) : undefined;
    if (valid !== undefined)
      throw new CommandError(
        "usage",
        `A rotation is under way: the previous token is valid ${valid}, and clients may still use it. Another rotation would end it at once. To do so, pass --yes.`,
      );
    const until = endAfter(hours);
    const known = write ? kept : undefined;
    const rotation = name === undefined ? rotateOwner(known, until) : rotateNamed(name, known, until);
    if (write) writeVariables(VARIABLES_FILE, rotation.variables);
    const steps = [...(write ? WRITTEN : stepsFor(rotation)), ...stepsAfter(rotation, name)];
    if (asJSON) {
      const { token } = rotation;
      const data = { token, sha256: sha256(token), until, written: write === true };
      return json(true, { ...data, variables: rotation.variables, steps });
    }
    line(rotation.token);
    for (const [index, step] of steps.entries()) note(`${index + 1}. ${step}`);
  });

const WRITTEN = [
  `${VARIABLES_FILE} has the new and the old token. Restart the server to accept both. Until then it accepts only the old one, which this command line uses by itself.`,
];

/** On Cloudflare each `secret put` is a deployment. In this order the current token is valid throughout. */
function stepsFor({ variables }: Rotation): string[] {
  const puts = Object.entries(variables).map(
    ([name, value]) =>
      `npx wrangler secret put ${name}   # ${name === "SERVER_AUTH_TOKEN" ? "the new token, above" : value}`,
  );
  return [
    "If an earlier rotation is still under way, wait for its end. There is only one previous token, and the current one replaces it.",
    ...puts,
    `For \`${startLine()}\` instead: ${PROGRAM} token rotate --write, or set the same variables.`,
  ];
}

function stepsAfter({ until }: Rotation, name: string | undefined): string[] {
  const [old, lost] =
    name === undefined
      ? [
          "SERVER_AUTH_TOKEN_PREVIOUS and SERVER_AUTH_TOKEN_PREVIOUS_UNTIL",
          " Sign-ins that were made with the old token end with it and, without LINK_KEY, so do the links and previews that it signed.",
        ]
      : ["previous_sha256 and previous_until", ""];
  return [
    `Give the new token to its clients; ${PROGRAM} connect <client> writes it. The log has "via":"previous_token" for clients that still use the old one.`,
    `The old token ends at ${until}. Remove ${old} then, or as soon as nobody uses it.${lost}`,
  ];
}

export const token = new Command("token")
  .description("generate, rotate, hash or show tokens")
  .addCommand(create)
  .addCommand(rotate)
  .addCommand(hash)
  .addCommand(show);
