/** The certificate authorities that sandboxes trust: those that the host was told to trust, and the engine's own. */
import { createHash, X509Certificate } from "node:crypto";
import { existsSync } from "node:fs";
import { rootCertificates } from "node:tls";
import { javaKeyStores } from "./java.ts";
import { npmSetting } from "./registries.ts";
import { readText } from "./host-files.ts";

/** Where the bundle lies in a sandbox. */
export const bundlePath = "/etc/ssl/sandbox-mcp.pem";

/** The variables by which common programs take a bundle that replaces their own. */
const replacing = ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "GIT_SSL_CAINFO"];

export interface Certificates {
  /** PEM; only certificates, whatever else the files held. */
  pem: string;
  env: Record<string, string>;
  /** What stands in the place of files of the system, by their paths. */
  files: Readonly<Record<string, string | Buffer>>;
}

/** Reads what the host's environment and npm name as extra authorities; undefined when they name none. */
export function hostCertificates(env: NodeJS.ProcessEnv = process.env): Certificates | undefined {
  const named = replacing.filter((name) => env[name] !== undefined && env[name] !== "");
  const extra = [env.NODE_EXTRA_CA_CERTS, env.npm_config_cafile, npmSetting(env, "cafile")];
  const files = new Set([...named.map((name) => env[name]), ...extra]);
  const blocks = new Set<string>();
  for (const file of files) {
    if (file === undefined || file === "" || !existsSync(file)) continue;
    for (const block of certificatesIn(readText(file))) blocks.add(block);
  }
  if (blocks.size === 0) return undefined;
  const pem = [...blocks].join("\n") + "\n";
  // A program that is given a bundle trusts nothing else, so it is named only where the host names one.
  const result: Record<string, string> = { NODE_EXTRA_CA_CERTS: bundlePath };
  for (const name of named) result[name] = bundlePath;
  return { pem, env: result, files: {} };
}

/** Where systems keep the bundle that programs use by themselves. */
const systemBundles = [
  "/etc/ssl/certs/ca-certificates.crt",
  "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
];

/**
 * Adds an authority to what sandboxes trust, in every place where a program looks.
 * @param pem its certificate
 */
export function withAuthority(host: Certificates | undefined, pem: string): Certificates {
  const present = systemBundles.filter((path) => existsSync(path));
  const system =
    present.length === 0 ? rootCertificates : present.flatMap((path) => certificatesIn(readText(path)));
  const own = certificatesIn(host?.pem ?? "");
  const trusted = [...new Set([...system.map((block) => block.trim()), ...own, pem.trim()])];
  const bundle = `${trusted.join("\n")}\n`;
  const names = [...replacing, "NODE_EXTRA_CA_CERTS", "AWS_CA_BUNDLE", "CARGO_HTTP_CAINFO"];
  return {
    pem: bundle,
    env: Object.fromEntries(names.map((name) => [name, bundlePath])),
    files: Object.fromEntries([
      ...present.map((path) => [path, bundle]),
      ...javaKeyStores().map((path) => [path, keyStore(trusted)]),
    ]),
  };
}

/**
 * A key store of Java's own format (JKS, version 2) with certificates to trust: a count, entries of alias, time and
 * certificate, and a digest, all big-endian. Java takes it wherever it expects PKCS #12.
 */
export function keyStore(pems: readonly string[]): Buffer {
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
