/** `npm run token`: prints the token that `npm start` uses in this environment, for commands that configure clients. */
import { ownerToken } from "../src/shared/env-fields.ts";
import { UserError } from "./user-error.ts";
import { variablesFile } from "./program-files.ts";
import { readVariables } from "./dev-vars.ts";
import { tokenGenerated, wrongOwnerToken } from "./texts.ts";

const file = variablesFile(process.env);
try {
  const { token, tokenSource } = readVariables(process.env, file);
  // The same check as the server's, because no client can connect with a token that the server refuses.
  const { error } = ownerToken.safeParse(token);
  if (error) throw wrongOwnerToken(error.issues);
  // If there was no token, `readVariables` has generated one. A missing token is not an error: a shell would run the surrounding
  // command without a token, even if this one failed.
  if (tokenSource === "generated") process.stderr.write(`${tokenGenerated(file)}\n`);
  process.stdout.write(`${token}\n`);
} catch (error) {
  if (!(error instanceof UserError)) throw error;
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
}
