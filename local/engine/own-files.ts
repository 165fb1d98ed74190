import { dirname, extname, resolve } from "node:path";
import { fileURLToPath } from "node:url";

/** The clone's directory; in the package, the build's. */
export const repository = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
/** The extension of our modules: Node runs TypeScript in a clone, but not in an installed package. */
export const moduleExtension = extname(import.meta.url);
