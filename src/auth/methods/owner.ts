/** Sign-in with the server's token, typed into the form. `Attempts` counts wrong tokens. */
import { ATTEMPTS_NAME, addressOf, attemptsOf } from "../../actors/attempts.ts";
import { ownerTokens } from "../../shared/config.ts";
import { OWNER_ID } from "../../shared/principal.ts";
import { sha256 } from "../../shared/sha256.ts";
import { markup } from "../html.ts";
import { isOwnerToken, tokenLocation } from "../owner-token.ts";
import type { FormMethod, Rule } from "./method.ts";
import { TOKEN_TEXTS } from "../texts.ts";

/** The token's field has no id, because a page of another site could open this page with `#id`, which gives an element the focus. */
export const owner: FormMethod<"owner"> = {
  name: "owner",
  variable: "SERVER_AUTH_TOKEN",
  isOn: ({ config, env }) => config.serverAuthToken !== undefined && env.Attempts !== undefined,
  rules: (config) => Promise.all(ownerTokens(config).map(ownerRule)),
  offer: async (_request, { config }) => ({
    isOneClick: false,
    show: ({ verb, button, isAlone, alert, isFocused }) => markup`<fieldset>
<legend>${TOKEN_TEXTS.legend}</legend>
<input type="text" name="username" value="owner" autocomplete="username" hidden>
${alert}<label class="field">${TOKEN_TEXTS.label}
<input type="password" name="token" required autocomplete="current-password" spellcheck="false"
 aria-describedby="${alert && "problem "}token-hint"${alert && markup` aria-invalid="true"`}${(alert || isFocused) && markup` autofocus`}></label>
<p class="soft" id="token-hint">${tokenLocation(config)}</p>
</fieldset>
<button ${button}>${isAlone ? verb : TOKEN_TEXTS.approve(verb)}</button>`,
  }),
  async identify(form, request, { env, config }) {
    const token = form.get("token") ?? "";
    const attempts = attemptsOf(env, ATTEMPTS_NAME);
    const address = addressOf(request);
    const wait = (await attempts?.take(address)) ?? Number.POSITIVE_INFINITY;
    if (wait > 0) {
      const headers = { "retry-after": String(wait) };
      const message = TOKEN_TEXTS.tooMany(wait);
      return { refused: "too_many_attempts", problem: { at: "owner", message, status: 429, headers } };
    }
    if (!(await isOwnerToken(token, config)))
      return { refused: "wrong_token", problem: { at: "owner", message: TOKEN_TEXTS.wrong, status: 403 } };
    await attempts?.succeeded(address);
    return { principal: OWNER_ID, rule: await ownerRule(token) };
  },
};

/** The rule for holders of the server's token. It contains a digest of the token. Nobody can sign in with the digest. */
async function ownerRule(serverAuthToken: string): Promise<Rule<"owner">> {
  const digest = await sha256(`sandbox-mcp owner's door\n${serverAuthToken}`);
  return `owner:${digest.subarray(0, 16).toHex()}`;
}
