/**
 * vitest's setup file for the suites that use clients: installs them if they are missing. Other tests run meanwhile. With `.ci/run`,
 * `npm run check` has begun the installation, and this waits for its end.
 */
import { installClients } from "../clients/install.ts";

await installClients((line) => void process.stderr.write(`${line}\n`));
