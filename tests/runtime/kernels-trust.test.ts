/** A kernel that was started before the platform added its TLS certificate. */
import { writeFileSync } from "node:fs";
import { createServer } from "node:https";
import { join } from "node:path";
import { callbackify } from "node:util";
import { expect, it } from "vitest";
import { CertificateAuthority } from "../../local/engine/authority.ts";
import { endLater } from "../setup/end-later.ts";
import { Lab, sharedDirectory } from "./kernel-harness.ts";
import { REMOTE_URL, startRuntime } from "./runtime.ts";
import { listen } from "../setup/listen.ts";

// A remote server's environment cannot be changed.
it.skipIf(REMOTE_URL)("a JavaScript kernel trusts a certificate that was added after its start", async () => {
  const directory = sharedDirectory();
  const file = join(directory, "platform.pem");
  const authority = await CertificateAuthority.open(join(directory, "authority"));
  const server = createServer({
    SNICallback: callbackify((name: string) => authority.contextFor(name)),
  });
  server.on("request", (_request, response) => response.end("by TLS"));
  const port = await listen(endLater(server));
  const runtime = await startRuntime(["/usr/bin/env", `SANDBOX_CA_CERT=${file}`]);
  const lab = endLater(new Lab(runtime));
  const started = await runtime.api.interpreter.createCodeContext({ language: "javascript" });
  writeFileSync(file, authority.pem);
  const kernel = await lab.loadPrelude(started.id, "javascript");
  expect(await kernel.value(`await (await fetch("https://localhost:${port}/")).text()`)).toBe("'by TLS'");
  // The default certificates are still trusted.
  expect(await kernel.value("require('tls').getCACertificates().length > 100")).toBe("true");
});
