import { remember } from "../../container/sandboxd/remember.ts";

/**
 * The grants of which this process has accepted a token, and whether the last token was valid. Strangers do not know the id of a
 * grant: only its codes and tokens contain it.
 */
const grants = new Map<string, boolean>();
const MAX_KNOWN = 1000;

/** The grant of a token, and the id of the principal whose grant it is. */
export function grantOf(token: string) {
  const grant = token.slice(0, token.lastIndexOf(":"));
  return {
    isKnown: grants.has(grant),
    isValid: grants.get(grant) === true,
    /** Only for a known grant, because strangers can send an invalid id. */
    principalID: () => decodeURIComponent(grant.slice(0, grant.indexOf(":"))),
    noteValid: () => remember(grants, grant, true, MAX_KNOWN),
    /** The grant stays known, because a client whose token has expired refreshes it next. */
    noteInvalid: () => void (grants.has(grant) && grants.set(grant, false)),
    id: grant,
  };
}
