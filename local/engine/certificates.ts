/** The certificate authorities that sandboxes trust: the host's and the engine's own. */
import { createHash, X509Certificate } from "node:crypto";
import { existsSync } from "node:fs";
import { rootCertificates } from "node:tls";
import { AUTHORITY_FILE, BASE_BUNDLE_FILE } from "../runtime/trust.ts";
import { javaFiles } from "./java.ts";
import { npmSetting } from "./registries.ts";
import { readText } from "./host-files.ts";

export const certificateVariables = [
  "SSL_CERT_FILE",
  "CURL_CA_BUNDLE",
  "REQUESTS_CA_BUNDLE",
  "PIP_CERT",
  "GIT_SSL_CAINFO",
  "NODE_EXTRA_CA_CERTS",
  "npm_config_cafile",
];

/** The authorities that the host's environment and npm's settings name, as PEM, without other content of the files. */
export function hostCertificates(env: NodeJS.ProcessEnv = process.env): string | undefined {
  const files = new Set([...certificateVariables.map((name) => env[name]), npmSetting(env, "cafile")]);
  const blocks = new Set<string>();
  for (const file of files) {
    if (file === undefined || file === "" || !existsSync(file)) continue;
    for (const block of certificatesIn(readText(file))) blocks.add(block);
  }
  return blocks.size === 0 ? undefined : `${[...blocks].join("\n")}\n`;
}

const systemBundles = [
  "/etc/ssl/certs/ca-certificates.crt",
  "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
];

/**
 * The trusted certificates, by path in a sandbox. @param host additional authorities @param authority the engine's own, which the
 * control server adds to the bundle when it starts
 */
export function trustedFiles(
  host: string | undefined,
  authority: string | undefined,
): Record<string, string | Buffer> {
  const present = systemBundles.filter((path) => existsSync(path));
  const system =
    present.length === 0 ? rootCertificates : present.flatMap((path) => certificatesIn(readText(path)));
  const trusted = [...new Set([...system.map((block) => block.trim()), ...certificatesIn(host ?? "")])];
  const files = { [BASE_BUNDLE_FILE]: `${trusted.join("\n")}\n` };
  if (authority === undefined) return files;
  const all = [...trusted, authority.trim()];
  return {
    ...files,
    [AUTHORITY_FILE]: authority,
    ...Object.fromEntries(present.map((path) => [path, `${all.join("\n")}\n`])),
    ...Object.fromEntries(javaFiles("lib/security/cacerts").map((path) => [path, keyStore(all)])),
  };
}

/**
 * Makes a Java key store (JKS, version 2): the number of entries, the entries (alias, time, certificate), and a digest. All
 * numbers are big-endian. Java accepts this format wherever it expects PKCS #12.
 */
function keyStore(pems: readonly string[]): Buffer {
  const number = (value: number, bytes: number) =>
    Buffer.from(value.toString(16).padStart(bytes * 2, "0"), "hex");
  const text = (value: string) => Buffer.concat([number(value.length, 2), Buffer.from(value)]);
  const entry = (pem: string, index: number) => {
    const { raw } = new X509Certificate(pem);
    // Tag 2 is a trusted certificate.
    return [number(2, 4), text(`a${index}`), number(0, 8), text("X.509"), number(raw.length, 4), raw];
  };
  const store = Buffer.concat([
    number(0xfeedfeed, 4),
    number(2, 4),
    number(pems.length, 4),
    ...pems.flatMap(entry),
  ]);
  const password = Buffer.from("changeit", "utf16le").swap16();
  const digest = createHash("sha1").update(password).update("Mighty Aphrodite").update(store).digest();
  return Buffer.concat([store, digest]);
}

function certificatesIn(text: string): string[] {
  return text.match(/-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/g) ?? [];
}
