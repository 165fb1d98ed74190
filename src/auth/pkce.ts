/** Proof Key for Code Exchange (RFC 7636), for the server's own sign-ins. */
import { sha256 } from "../shared/sha256.ts";

export async function challengeOf(verifier: string): Promise<string> {
  return (await sha256(verifier)).toBase64({ alphabet: "base64url", omitPadding: true });
}
