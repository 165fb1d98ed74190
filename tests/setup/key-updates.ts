/** Key updates of TLS 1.3 (RFC 8446, 4.6.3), which Node cannot send itself. */
import { createCipheriv, createHmac } from "node:crypto";

/** HKDF-Expand-Label (RFC 8446, 7.1), for at most 32 bytes. */
function derive(secret: Buffer, name: string, length: number): Buffer {
  const label = [
    Buffer.from([0, length, 6 + name.length]),
    Buffer.from(`tls13 ${name}`),
    Buffer.from([0, 1]),
  ];
  return createHmac("sha256", secret).update(Buffer.concat(label)).digest().subarray(0, length);
}

/**
 * Makes records with one key update each. Each asks for a key update in return.
 * @param secret the traffic secret of a connection with TLS_AES_128_GCM_SHA256
 * @param sent how many records were sent with this secret, at most 255
 */
export function keyUpdates(secret: Buffer, sent: number, count: number): Buffer {
  const head = Buffer.from([23, 3, 3, 0, 22]);
  const records: Buffer[] = [];
  for (let key = secret, sequence = sent; records.length < count; sequence = 0) {
    const iv = derive(key, "iv", 12);
    iv[11] = (iv[11] ?? 0) ^ sequence;
    const cipher = createCipheriv("aes-128-gcm", derive(key, "key", 16), iv).setAAD(head);
    const content = cipher.update(Buffer.from([24, 0, 0, 1, 1, 22]));
    records.push(Buffer.concat([head, content, cipher.final(), cipher.getAuthTag()]));
    key = derive(key, "traffic upd", 32);
  }
  return Buffer.concat(records);
}
