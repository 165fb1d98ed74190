/** `npm run token`: prints the owner's token as the server reads it from `.dev.vars`, for the lines that clients need. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { UserError } from "./errors.ts";
import { keptToken } from "./variables.ts";

const file = join(fileURLToPath(new URL("..", import.meta.url)), ".dev.vars");
try {
  const token = keptToken(file);
  if (token === undefined) throw new UserError(`No SERVER_AUTH_TOKEN in ${file}: npm start keeps one there.`);
  process.stdout.write(`${token}\n`);
} catch (error) {
  if (!(error instanceof UserError)) throw error;
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
}
