/** Sign-in by Cloudflare Access, which stands before `/authorize` and says who came through in a header that it signs. */
import { createRemoteJWKSet, errors, jwtVerify } from "jose";
import type { AccessConfig } from "../shared/sign-in-config.ts";

export interface AccessIdentity {
  subject: string;
  /** For the page alone; the subject is who they are. */
  email: string;
}

type KeySet = ReturnType<typeof createRemoteJWKSet>;

/** The team's keys by their URL: fetched when first needed, and again when a key is new. */
const keySets = new Map<string, KeySet>();

/**
 * Who Access says sent the request; undefined when it does not say, or not for this application, or no longer.
 * A service token is nobody's: it has no subject.
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

/** Whether it is the assertion that is wrong, rather than the keys that could not be had. */
function isRefusal(error: unknown): boolean {
  return (
    error instanceof errors.JOSEError &&
    !(error instanceof errors.JWKSTimeout) &&
    !(error instanceof errors.JWKSInvalid) &&
    error.code !== "ERR_JOSE_GENERIC"
  );
}
