/** `npm run token`: prints the token that `npm start` takes in this environment, for the lines that clients need. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { ownerToken } from "../src/shared/env-fields.ts";
import { UserError } from "./errors.ts";
import { readVariables } from "./variables.ts";

const file = join(fileURLToPath(new URL("..", import.meta.url)), ".dev.vars");
try {
  const { token, tokenSource } = readVariables(process.env, file);
  // The server's own check: a client that is given what the server refuses could never connect.
  const { error } = ownerToken.safeParse(token);
  if (error)
    throw new UserError(`SERVER_AUTH_TOKEN ${error.issues.map(({ message }) => message).join("; ")}.`);
  // Never nothing: what stands around the token in a command runs whatever this says.
  if (tokenSource === "generated")
    process.stderr.write(`Generated SERVER_AUTH_TOKEN, and kept it in ${file}.\n`);
  process.stdout.write(`${token}\n`);
} catch (error) {
  if (!(error instanceof UserError)) throw error;
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
}
