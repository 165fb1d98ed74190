/**
 * The signature of a text: 32 bytes. The text begins with a word for the kind of address, so that a signature for one kind is
 * not valid for another.
 */
export async function sign(key: CryptoKey, text: string): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.sign("HMAC", key, new TextEncoder().encode(text)));
}
