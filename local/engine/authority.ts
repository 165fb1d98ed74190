/** The certificate authority for hosts whose TLS the engine intercepts to add a credential. Its key stays on this machine. */
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPair,
  type KeyObject,
  randomBytes,
  sign,
} from "node:crypto";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createSecureContext, type SecureContext } from "node:tls";
import { promisify } from "node:util";
import forge from "node-forge";
import { remember } from "../../container/sandboxd/remember.ts";
import { DAY_MS } from "../../src/shared/days.ts";

const { asn1, md, pki } = forge;
const authorityDays = 3650;
/** How long a certificate is valid. Clients refuse server certificates that are valid for too long. */
const serverDays = 90;
/** The most cached certificates. There is a limit because a sandbox may request any name that a wildcard covers. */
const maxCached = 100;

interface CachedCertificate {
  context: SecureContext;
  validity: Validity;
}

type Validity = forge.pki.Certificate["validity"];

/** Whether a certificate is valid, and stays valid for some days. If the clock was set back, it may not be valid yet. */
function isValid({ notBefore, notAfter }: Validity, days: number): boolean {
  const now = Date.now();
  return notBefore.getTime() <= now && notAfter.getTime() > now + days * DAY_MS;
}

export class CertificateAuthority {
  readonly pem: string;
  readonly #certificate: forge.pki.Certificate;
  readonly #key: KeyObject;
  /** The key of all server certificates. One is enough, because it protects only connections between a sandbox and its engine. */
  #serverKey: Promise<KeyPair> | undefined;
  readonly #cached = new Map<string, CachedCertificate>();

  private constructor(pem: string, key: KeyObject) {
    this.pem = pem;
    this.#certificate = pki.certificateFromPem(pem);
    this.#key = key;
  }

  static async open(directory: string): Promise<CertificateAuthority> {
    const [certificateFile, keyFile] = [join(directory, "certificate.pem"), join(directory, "key.pem")];
    const stored = await readAuthority(certificateFile, keyFile);
    if (stored) return new CertificateAuthority(stored.pem, stored.key);
    const pair = await makeKey();
    const certificate = authorityCertificate(pair);
    const pem = pki.certificateToPem(certificate);
    await mkdir(directory, { recursive: true, mode: 0o700 });
    // The key is written first. If the engine ends before it writes the certificate, the next start makes both again.
    await replace(keyFile, pair.privateKey.export({ type: "pkcs8", format: "pem" }).toString());
    await replace(certificateFile, pem);
    return new CertificateAuthority(pem, pair.privateKey);
  }

  async contextFor(host: string): Promise<SecureContext> {
    const serverKey = await (this.#serverKey ??= makeKey());
    const cached = this.#cached.get(host);
    const fresh = cached && isValid(cached.validity, 1) ? cached : this.#issue(host, serverKey);
    remember(this.#cached, host, fresh, maxCached);
    return fresh.context;
  }

  #issue(host: string, serverKey: KeyPair): CachedCertificate {
    const certificate = certificateFor(serverKey.publicKey, serverDays);
    certificate.setSubject([{ name: "organizationName", value: "sandbox-mcp" }]);
    certificate.setIssuer(this.#certificate.subject.attributes);
    certificate.setExtensions([
      { name: "basicConstraints", cA: false, critical: true },
      { name: "keyUsage", digitalSignature: true, keyEncipherment: true, critical: true },
      { name: "extKeyUsage", serverAuth: true },
      // Type 2 is a DNS name (RFC 5280, 4.2.1.6).
      { name: "subjectAltName", critical: false, altNames: [{ type: 2, value: host }] },
      {
        name: "authorityKeyIdentifier",
        keyIdentifier: this.#certificate.generateSubjectKeyIdentifier().getBytes(),
      },
    ]);
    signWith(certificate, this.#key);
    const key = serverKey.privateKey.export({ type: "pkcs8", format: "pem" });
    const context = createSecureContext({ cert: pki.certificateToPem(certificate), key });
    return { context, validity: certificate.validity };
  }
}

interface KeyPair {
  publicKey: KeyObject;
  privateKey: KeyObject;
}

async function makeKey(): Promise<KeyPair> {
  return await promisify(generateKeyPair)("rsa", { modulusLength: 2048 });
}

function authorityCertificate({ publicKey, privateKey }: KeyPair): forge.pki.Certificate {
  const certificate = certificateFor(publicKey, authorityDays);
  const name = [{ name: "commonName", value: "sandbox-mcp on this machine" }];
  certificate.setSubject(name);
  certificate.setIssuer(name);
  certificate.setExtensions([
    { name: "basicConstraints", cA: true, pathLenConstraint: 0, critical: true },
    { name: "keyUsage", keyCertSign: true, critical: true },
    { name: "subjectKeyIdentifier" },
  ]);
  signWith(certificate, privateKey);
  return certificate;
}

function certificateFor(publicKey: KeyObject, days: number): forge.pki.Certificate {
  const certificate = pki.createCertificate();
  certificate.publicKey = pki.publicKeyFromPem(publicKey.export({ type: "spki", format: "pem" }).toString());
  // A serial number is positive (RFC 5280, 4.1.2.2) and, like all DER numbers, has no leading zeros: its first byte is 1.
  certificate.serialNumber = `01${randomBytes(16).toString("hex")}`;
  const now = Date.now();
  certificate.validity.notBefore = new Date(now - DAY_MS);
  certificate.validity.notAfter = new Date(now + days * DAY_MS);
  return certificate;
}

/** Signs with Node, because forge's own arithmetic takes a hundred times as long. */
function signWith(certificate: forge.pki.Certificate, key: KeyObject): void {
  const signer: Pick<forge.pki.rsa.PrivateKey, "sign"> = {
    sign: () => {
      const bytes = asn1.toDer(certificate.tbsCertificate).getBytes();
      return sign("sha256", Buffer.from(bytes, "latin1"), key).toString("latin1");
    },
  };
  certificate.sign(signer as forge.pki.rsa.PrivateKey, md.sha256.create());
}

/** Reads the stored authority. Undefined if it is incomplete, not valid yet, or expires within a month. */
async function readAuthority(
  certificateFile: string,
  keyFile: string,
): Promise<{ pem: string; key: KeyObject } | undefined> {
  try {
    const [pem, keyPEM] = await Promise.all([readFile(certificateFile, "utf8"), readFile(keyFile, "utf8")]);
    const certificate = pki.certificateFromPem(pem);
    const key = createPrivateKey(keyPEM);
    const own = createPublicKey(key).export({ type: "spki", format: "pem" });
    const certified = createPublicKey(pem).export({ type: "spki", format: "pem" });
    return own === certified && isValid(certificate.validity, 30) ? { pem, key } : undefined;
  } catch {
    return undefined;
  }
}

async function replace(file: string, content: string): Promise<void> {
  const temporary = `${file}.${process.pid}`;
  await writeFile(temporary, content, { mode: 0o600 });
  await rename(temporary, file);
}
