/** `npm run token`: prints the token that `npm start` uses in this environment, for commands that configure clients. */
import { ownerToken } from "../src/shared/env-fields.ts";
import { UserError } from "./user-error.ts";
import { variablesFile } from "./program-files.ts";
import { readVariables } from "./variables.ts";
import { tokenGenerated, wrongOwnerToken } from "./texts.ts";

const file = variablesFile(process.env);
try {
  const { token, tokenSource } = readVariables(process.env, file);
  // The server's own check: no client could connect with a token that the server refuses.
  const { error } = ownerToken.safeParse(token);
  if (error) throw wrongOwnerToken(error.issues);
  // Never an empty text: the surrounding command runs even if this one fails.
  if (tokenSource === "generated") process.stderr.write(`${tokenGenerated(file)}\n`);
  process.stdout.write(`${token}\n`);
} catch (error) {
  if (!(error instanceof UserError)) throw error;
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
}
