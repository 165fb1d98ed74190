/** `sandbox-mcp token`: tokens of a server, their hashes, and where they go. */
import { createHash, randomBytes } from "node:crypto";
import { Command, Option } from "@commander-js/extra-typings";
import { ownerToken } from "../../src/shared/env-fields.ts";
import { SCOPES, TOKEN_NAME } from "../../src/shared/principal.ts";
import { dataCommand } from "../command.ts";
import { CommandError } from "../exit.ts";
import { json, line, note } from "../print.ts";
import { VARIABLES_FILE } from "../server.ts";
import { readVariables } from "../variables.ts";

const sha256 = (token: string) => createHash("sha256").update(token).digest("hex");

const show = dataCommand("show", "print the token that `npm start` takes in this environment", [
  "token show",
]).action(({ json: asJSON }) => {
  const { token, tokenSource } = readVariables(process.env, VARIABLES_FILE);
  const { error } = ownerToken.safeParse(token);
  if (error)
    throw new CommandError(
      "failed",
      `SERVER_AUTH_TOKEN ${error.issues.map(({ message }) => message).join("; ")}.`,
    );
  if (asJSON) json(true, { token, source: tokenSource });
  else line(token);
});

const create = dataCommand("new", "make a token, and say where it goes; it is written nowhere", [
  "token new",
  "token new --name ci --scopes tasks:run,sandbox:read",
])
  .option(
    "--name <name>",
    "make one of AUTH_TOKENS, whose holder has sandboxes of their own; else the owner's",
  )
  .addOption(new Option("--scopes <scopes>", `what it allows: ${SCOPES.join(",")}`).default(SCOPES.join(",")))
  .action(({ name, scopes, json: asJSON }) => {
    const token = randomBytes(32).toString("base64url");
    const hash = sha256(token);
    if (name === undefined) {
      if (asJSON) return json(true, { token, sha256: hash, variable: "SERVER_AUTH_TOKEN" });
      line(token);
      note("The owner's token, in place of the one before, which ends with the change:");
      note("  on Cloudflare  npx wrangler secret put SERVER_AUTH_TOKEN");
      note(`  npm start      SERVER_AUTH_TOKEN=... in ${VARIABLES_FILE}, then start it again`);
      return;
    }
    if (!TOKEN_NAME.test(name)) throw new CommandError("usage", "--name must be 1 to 32 of a-z, 0-9 and -.");
    const granted = scopes.split(",").map((scope) => scope.trim());
    const unknown = granted.find((scope) => !SCOPES.some((known) => known === scope));
    if (unknown !== undefined)
      throw new CommandError("usage", `--scopes has "${unknown}", which is none of ${SCOPES.join(", ")}.`);
    const entry = { name, sha256: hash, scopes: granted };
    if (asJSON) return json(true, { token, sha256: hash, variable: "AUTH_TOKENS", entry });
    line(token);
    note(
      "The server gets its hash, as an element of the list AUTH_TOKENS (a secret on Cloudflare, .dev.vars locally):",
    );
    note(`  ${JSON.stringify(entry)}`);
  });

const hash = dataCommand("hash", "print the SHA-256 of a token on standard input, as AUTH_TOKENS has it", [
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

export const token = new Command("token")
  .description("make a token, and the hash that the server gets of it")
  .addCommand(create)
  .addCommand(hash)
  .addCommand(show);
