/** Stands in for how the image's server has a sandbox trust the platform that ends TLS. */
import { appendFileSync, copyFileSync, existsSync, readFileSync } from "node:fs";

/** The platform's certificate, where Cloudflare puts it. */
export const AUTHORITY_FILE = "/etc/cloudflare/certs/cloudflare-containers-ca.crt";

/** What a sandbox trusts without it. */
export const BASE_BUNDLE_FILE = "/opt/sandbox-runtime/etc/authorities.pem";

/** What programs trust, by the variables of container/environment. */
export const BUNDLE_FILE = "/etc/ssl/sandbox-mcp.pem";

/** Puts the bundle in place, as the image has it before its server starts. Outside of a sandbox there is none. */
export function layBundle(): void {
  if (existsSync(BASE_BUNDLE_FILE)) copyFileSync(BASE_BUNDLE_FILE, BUNDLE_FILE);
}

/** Adds the platform's certificate where TLS is intercepted. */
export function trustPlatform(): void {
  if (existsSync(AUTHORITY_FILE)) appendFileSync(BUNDLE_FILE, readFileSync(AUTHORITY_FILE));
}
