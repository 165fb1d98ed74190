"use strict";
const { readFileSync } = require("node:fs");
const tls = require("node:tls");
const { process } = globalThis;
/** The certificate of Cloudflare's TLS interception. SANDBOX_CA_CERT overrides its path. */
const PLATFORM = process.env.SANDBOX_CA_CERT || "/etc/cloudflare/certs/cloudflare-containers-ca.crt";

/**
 * Makes this process trust the platform's certificate. Node reads NODE_EXTRA_CA_CERTS only at its start, and a kernel that is
 * started ahead runs before the platform adds the certificate.
 */
function trustPlatform() {
  let certificate;
  try {
    certificate = readFileSync(PLATFORM, "utf8").trim();
  } catch {
    // Without a certificate, the platform does not intercept TLS.
    return;
  }
  if (tls.getCACertificates("extra").some((known) => known.trim() === certificate)) return;
  tls.setDefaultCACertificates([...tls.getCACertificates(), certificate]);
}

module.exports = { trustPlatform };
