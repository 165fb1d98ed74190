/** The sign-in methods, in the order in which the consent page shows them. */
import type { Config } from "../../shared/config.ts";
import { OWNER_ID, type Principal, type SignInName, tokenPrincipalID } from "../../shared/principal.ts";
import type { RequestContext } from "../../shared/request-context.ts";
import { access } from "./access.ts";
import { github } from "./github.ts";
import type { RedirectMethod, SignInMethod } from "./method.ts";
import { owner } from "./owner.ts";

const BY_NAME: { [Name in SignInName]: SignInMethod<Name> } = { owner, github, access };

export const METHODS: readonly SignInMethod[] = Object.values(BY_NAME);

export const REDIRECT_METHODS: readonly RedirectMethod[] = METHODS.filter((method) => "signInURL" in method);

/** Whether the caller can sign in as the same principal in a browser, on a server on which OAuth is on. */
export function canSignIn({ id }: Principal, context: RequestContext): boolean {
  return id === OWNER_ID ? owner.isOn(context) : !id.startsWith(tokenPrincipalID(""));
}

export async function isRuleInForce(config: Config, rule: string): Promise<boolean> {
  const rules = await Promise.all(METHODS.map((method) => method.rules(config)));
  return rules.flat().some((known) => known === rule);
}
