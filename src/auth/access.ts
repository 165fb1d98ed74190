/** Sign-in by Cloudflare Access, which stands before `/authorize` and says who came through in a header that it signs. */
import { createRemoteJWKSet, errors, jwtVerify } from "jose";
import type { AccessConfig } from "../shared/sign-in-config.ts";

export interface AccessIdentity {
  subject: string;
  /** Shown on the page; the identity is the subject. */
  email: string;
}

type KeySet = ReturnType<typeof createRemoteJWKSet>;

/** The team's signing keys by their URL. They are fetched on first use, and again when an assertion names an unknown key. */
const keySets = new Map<string, KeySet>();

/**
 * The person whom Access names as the sender; undefined without a valid, unexpired assertion for this application.
 * A service token has no subject, so it names nobody.
 * @throws when the team's keys cannot be fetched
 */
export async function accessIdentity(
  request: Request,
  access: AccessConfig,
): Promise<AccessIdentity | undefined> {
  const assertion = request.headers.get("cf-access-jwt-assertion");
  if (!assertion) return undefined;
  const keys = keySets.get(access.certsURL) ?? createRemoteJWKSet(new URL(access.certsURL));
  keySets.set(access.certsURL, keys);
  try {
    const { payload } = await jwtVerify(assertion, keys, {
      issuer: access.issuer,
      audience: access.audience,
      algorithms: ["RS256"],
      requiredClaims: ["exp", "sub"],
    });
    const { sub: subject = "", email } = payload;
    if (!/^[\w.@|+-]{1,100}$/.test(subject)) return undefined;
    return { subject, email: typeof email === "string" ? email : subject };
  } catch (error) {
    if (isRefusal(error)) return undefined;
    throw error;
  }
}

/** Whether the assertion is at fault, and not the fetching of the keys. */
function isRefusal(error: unknown): boolean {
  return (
    error instanceof errors.JOSEError &&
    !(error instanceof errors.JWKSTimeout) &&
    !(error instanceof errors.JWKSInvalid) &&
    error.code !== "ERR_JOSE_GENERIC"
  );
}
