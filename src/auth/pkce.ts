/** Proof Key for Code Exchange (RFC 7636), as the server uses it itself. */
import { sha256 } from "../shared/sha256.ts";

/** The S256 challenge of a verifier. */
export async function challengeOf(verifier: string): Promise<string> {
  return (await sha256(verifier)).toBase64({ alphabet: "base64url", omitPadding: true });
}
