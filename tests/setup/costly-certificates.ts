/** Certificates of a host that are slow to verify: the exponents of their RSA keys are as long as OpenSSL allows. */
import { generateKeyPairSync, randomBytes } from "node:crypto";

const RSA_BITS = 3072;

/** A value of ASN.1 in DER (X.690). */
function der(tag: number, ...content: Buffer[]): Buffer {
  const bytes = Buffer.concat(content);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([Buffer.from([tag, 0x84]), length, bytes]);
}
const sequence = (...content: Buffer[]) => der(0x30, ...content);
const bits = (bytes: Buffer) => der(3, Buffer.from([0]), bytes);
const id = (hex: string) => der(6, Buffer.from(hex, "hex"));
const nothing = der(5);
const commonName = (text: string) => sequence(der(0x31, sequence(id("550403"), der(12, Buffer.from(text)))));
const rsa = sequence(id("2a864886f70d010101"), nothing);
const sha256WithRSA = sequence(id("2a864886f70d01010b"), nothing);
const validity = sequence(...["250101000000Z", "490101000000Z"].map((time) => der(23, Buffer.from(time))));
const isAuthority = der(0xa3, sequence(sequence(id("551d13"), der(4, sequence(der(1, Buffer.from([255])))))));

function certificate(subject: string, issuer: string, key: Buffer): string {
  const version = der(0xa0, der(2, Buffer.from([2])));
  const names = [commonName(issuer), validity, commonName(subject)];
  const signed = sequence(version, der(2, Buffer.from([1])), sha256WithRSA, ...names, key, isAuthority);
  // OpenSSL takes as long to refuse a wrong signature.
  const signature = Buffer.concat([Buffer.from([0x3f]), randomBytes(RSA_BITS / 8 - 1)]);
  const bytes = sequence(signed, sha256WithRSA, bits(signature));
  return `-----BEGIN CERTIFICATE-----\n${bytes.toString("base64")}\n-----END CERTIFICATE-----\n`;
}

/** A host's key, and its certificate with `count` further ones, as PEM. */
export function costlyCertificates(count: number): { key: string; cert: string } {
  const { publicKey } = generateKeyPairSync("rsa", { modulusLength: RSA_BITS });
  const modulus = Buffer.from(publicKey.export({ format: "jwk" }).n ?? "", "base64url");
  const exponent = Buffer.alloc(RSA_BITS / 8, 0xff).fill(0x7f, 0, 1);
  const numbers = sequence(der(2, Buffer.from([0]), modulus), der(2, exponent));
  const costly = sequence(rsa, bits(numbers));
  const own = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const first = certificate("host.test", "0", own.publicKey.export({ format: "der", type: "spki" }));
  const others = Array.from({ length: count }, (_, n) => certificate(String(n), String(n + 1), costly));
  return {
    key: own.privateKey.export({ format: "pem", type: "pkcs8" }).toString(),
    cert: [first, ...others].join(""),
  };
}
