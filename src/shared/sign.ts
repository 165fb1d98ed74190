/** The signature of a text: 32 bytes. Each kind of address begins its text with its own word. */
export async function sign(key: CryptoKey, text: string): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.sign("HMAC", key, new TextEncoder().encode(text)));
}
