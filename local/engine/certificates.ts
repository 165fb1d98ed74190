/** The certificate authorities that sandboxes trust: those that the host was told to trust, and the engine's own. */
import { existsSync, readFileSync } from "node:fs";
import { rootCertificates } from "node:tls";
import { npmSetting } from "./registries.ts";

/** Where the bundle lies in a sandbox. */
export const bundlePath = "/etc/ssl/sandbox-mcp.pem";

/** The variables by which common programs take a bundle that replaces their own. */
const replacing = ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "GIT_SSL_CAINFO"];

export interface Certificates {
  /** PEM; only certificates, whatever else the files held. */
  pem: string;
  env: Record<string, string>;
  /** Files of the system in whose place it stands. */
  replaces: readonly string[];
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
  return { pem, env: result, replaces: [] };
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
  const all = new Set([
    ...system.map((block) => block.trim()),
    ...certificatesIn(host?.pem ?? ""),
    pem.trim(),
  ]);
  const names = [...replacing, "NODE_EXTRA_CA_CERTS", "AWS_CA_BUNDLE", "CARGO_HTTP_CAINFO"];
  return {
    pem: [...all].join("\n") + "\n",
    env: Object.fromEntries(names.map((name) => [name, bundlePath])),
    replaces: present,
  };
}

function certificatesIn(text: string): string[] {
  return text.match(/-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/g) ?? [];
}

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}
