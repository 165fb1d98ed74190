/** The interface of sign-in methods. Each method has a file in this folder and a line in index.ts. */
import type { Config } from "../../shared/config.ts";
import type { SignInRefusal } from "../../shared/log.ts";
import type { OWNER_ID, SignInName } from "../../shared/principal.ts";
import type { RequestContext } from "../../shared/request-context.ts";
import type { VariableName } from "../../shared/variables.ts";
import type { HTML } from "../html.ts";
import type { MethodStore } from "../oauth-store.ts";

export interface Identity<Name extends SignInName = SignInName> {
  principal: Name extends "owner" ? typeof OWNER_ID : `${Name}:${string}`;
  /** The rule that let the person sign in, one of `Method.rules`. */
  rule: Rule<Name>;
}

/** Begins with the method's name, so that the rules of two methods differ. */
export type Rule<Name extends SignInName> = `${Name}:${string}`;

/** A problem with the submitted form. `at` is the place on the page: a method's name, `scopes`, or `top`. */
export interface Problem {
  at: string;
  message: string;
  status: number;
  headers?: Record<string, string>;
}

interface RefusedForm {
  refused: SignInRefusal;
  problem: Problem;
}

/** The refusal for a person who returned from another site and may not sign in. */
interface RefusedAccount {
  refused: "not_allowed" | "login_reassigned";
  login: string;
}

/** The site of a sign-in method did not respond as it should. */
export class SiteError extends Error {
  override readonly name = "SiteError";
}

const SITE_TIMEOUT_MS = 10_000;

/** Sends a request to the site of a sign-in method. Does not follow redirects. @throws {SiteError} also after the time limit */
export async function fetchSite(title: string, url: string, init: RequestInit): Promise<Response> {
  try {
    return await fetch(url, { ...init, redirect: "manual", signal: AbortSignal.timeout(SITE_TIMEOUT_MS) });
  } catch (error) {
    throw new SiteError(`${title} cannot be reached`, { cause: error });
  }
}

interface Appearance {
  verb: string;
  /** The attributes of the method's button: the name `decision`, and the method's name as the value. */
  button: HTML;
  isPanel: boolean;
  /** Whether this is the only sign-in method on the page. */
  isAlone: boolean;
  alert: HTML | false | undefined;
  isFocused: boolean;
}

export interface Offer {
  /** A click alone approves, so the page must protect the button. False if the person types a secret first. */
  isOneClick: boolean;
  /** The part of the form with its button. */
  show(appearance: Appearance): HTML;
  /** The sign-in page's origin, if it is another site. The server may redirect the form there. */
  origin?: string;
}

/** The part of the configuration that a method sees: the variables that begin with its name. The owner's method sees all of it. */
export type MethodConfig<Name extends SignInName> = Name extends "owner"
  ? Config
  : { values: Pick<Config["values"], VariableName & `${Uppercase<Name>}_${string}`> };

interface Method<Name extends SignInName> {
  /** The method's name in the log, grants and forms, and before the colon of principal ids. It never changes. */
  name: Name;
  /** The variable that turns the method on. It begins with the method's name. */
  variable: Name extends "owner" ? "SERVER_AUTH_TOKEN" : VariableName & `${Uppercase<Name>}_${string}`;
  isOn(context: Pick<RequestContext, "env"> & { config: MethodConfig<Name> }): boolean;
  /**
   * The rules that let people sign in now. A grant names its rule, and every use of its tokens checks that the rule still
   * exists. So never change the text of a rule.
   */
  rules(config: MethodConfig<Name>): Promise<readonly Rule<Name>[]> | readonly Rule<Name>[];
}

export interface FormMethod<Name extends SignInName = SignInName> extends Method<Name> {
  /** Returns undefined if this browser cannot use the method. */
  offer(request: Request, context: RequestContext): Promise<Offer | undefined>;
  /** The name of the service that identifies people before their requests reach the server, if that is how the method works. */
  gateway?: string;
  identify(
    form: URLSearchParams,
    request: Request,
    context: RequestContext,
  ): Promise<Identity<Name> | RefusedForm | undefined>;
}

/** Values that bind a sign-in at another site to this browser and this server. */
export interface SignInRedirect {
  verifier: string;
  redirectURI: string;
}

export interface RedirectMethod<Name extends SignInName = SignInName> extends Method<Name> {
  /** The site's name, in texts. */
  title: string;
  /** The sign-in page's origin. The server may redirect the form there. */
  origin(config: MethodConfig<Name>): string;
  signInURL(config: MethodConfig<Name>, redirect: SignInRedirect & { state: string }): Promise<string>;
  /** @throws {SiteError} */
  identify(
    code: string,
    redirect: SignInRedirect,
    config: MethodConfig<Name>,
    store: MethodStore<Name>,
  ): Promise<Identity<Name> | RefusedAccount>;
}

export type SignInMethod<Name extends SignInName = SignInName> = FormMethod<Name> | RedirectMethod<Name>;
