/** Where our own files are. */
import { dirname, extname, resolve } from "node:path";
import { fileURLToPath } from "node:url";

/** The clone's directory; in the package, the directory of what was built. */
export const repository = resolve(dirname(fileURLToPath(import.meta.url)), "../..");

/** Of our own modules: Node runs TypeScript in a clone, but not in a package that npm has installed. */
export const moduleExtension = extname(import.meta.url);
