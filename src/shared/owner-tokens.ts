import type { Config } from "./config.ts";

/** The owner's accepted tokens, newest first. The previous token is accepted only if a newer token is set. */
export function ownerTokens(config: Pick<Config, "serverAuthToken" | "previousToken">): readonly string[] {
  const { serverAuthToken, previousToken } = config;
  if (serverAuthToken === undefined) return [];
  const isAccepted = previousToken !== undefined && Date.now() < previousToken.until;
  return isAccepted ? [serverAuthToken, previousToken.value] : [serverAuthToken];
}
