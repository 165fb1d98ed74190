/** Makes a sandbox trust the platform's TLS interception, as the SDK's server does in the image. */
import { appendFileSync, copyFileSync, existsSync, readFileSync } from "node:fs";

export const AUTHORITY_FILE = "/etc/cloudflare/certs/cloudflare-containers-ca.crt";
export const BASE_BUNDLE_FILE = "/opt/sandbox-runtime/etc/authorities.pem";
/** The certificates that programs trust. The variables in container/environment name this file. */
export const BUNDLE_FILE = "/etc/ssl/sandbox-mcp.pem";

/** Copies the bundle to the path that it has in the image. Without isolation there is no bundle. */
export function writeBundle(): void {
  if (existsSync(BASE_BUNDLE_FILE)) copyFileSync(BASE_BUNDLE_FILE, BUNDLE_FILE);
}

export function trustPlatform(): void {
  if (existsSync(AUTHORITY_FILE)) appendFileSync(BUNDLE_FILE, readFileSync(AUTHORITY_FILE));
}
