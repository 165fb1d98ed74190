/** Makes a sandbox trust the platform's TLS interception, as the SDK's server does in the image. */
import { appendFileSync, copyFileSync, existsSync, readFileSync } from "node:fs";

export const AUTHORITY_FILE = "/etc/cloudflare/certs/cloudflare-containers-ca.crt";
export const BASE_BUNDLE_FILE = "/opt/sandbox-runtime/etc/authorities.pem";
/** The certificates that programs trust, by the variables of container/environment. */
export const BUNDLE_FILE = "/etc/ssl/sandbox-mcp.pem";

/** Installs the bundle, which is part of the image. Without isolation there is no bundle. */
export function writeBundle(): void {
  if (existsSync(BASE_BUNDLE_FILE)) copyFileSync(BASE_BUNDLE_FILE, BUNDLE_FILE);
}

export function trustPlatform(): void {
  if (existsSync(AUTHORITY_FILE)) appendFileSync(BUNDLE_FILE, readFileSync(AUTHORITY_FILE));
}
