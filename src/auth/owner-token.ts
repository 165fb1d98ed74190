/** Checks the owner's token, and says where to find it. */
import { type Config, ownerTokens } from "../shared/config.ts";
import { sha256 } from "../shared/sha256.ts";
import { markup } from "./html.ts";
import { TOKEN_TEXTS } from "./texts.ts";

export async function isOwnerToken(token: string, config: Config): Promise<boolean> {
  const digest = await sha256(token);
  const digests = await Promise.all(ownerTokens(config).map(sha256));
  return digests.filter((own) => crypto.subtle.timingSafeEqual(digest, own)).length > 0;
}

export function tokenLocation({ localTokenCommand }: Pick<Config, "localTokenCommand">) {
  return localTokenCommand === undefined
    ? TOKEN_TEXTS.isSecret
    : TOKEN_TEXTS.command(markup`<code>${localTokenCommand}</code>`);
}
