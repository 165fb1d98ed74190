/** vitest's setup file for the suites that use clients: waits until they are installed. vitest's configuration begins that. */
import { installClients } from "../clients/install.ts";

await installClients(() => undefined);
