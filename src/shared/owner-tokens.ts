/** The owner's tokens: one, and during its rotation the one before it. */
import type { Config } from "./config.ts";

/** Those that are accepted now, the newest first. The one before counts only beside a newer. */
export function ownerTokens({
  serverAuthToken,
  previousToken,
}: Pick<Config, "serverAuthToken" | "previousToken">): readonly string[] {
  if (serverAuthToken === undefined) return [];
  const isAccepted = previousToken !== undefined && Date.now() < previousToken.until;
  return isAccepted ? [serverAuthToken, previousToken.value] : [serverAuthToken];
}
