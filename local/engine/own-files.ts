import { dirname, extname, resolve } from "node:path";
import { fileURLToPath } from "node:url";

/** The directory of the clone of the repository; in an installed package, the directory of the build. */
export const repository = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
/** The extension of our modules: Node runs TypeScript in a clone, but not in an installed package. */
export const moduleExtension = extname(import.meta.url);
