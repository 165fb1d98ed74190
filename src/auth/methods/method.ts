/** What a sign-in method is. Each has a file of its own in this folder, and a line in index.ts. */
import type { Config } from "../../shared/config.ts";
import type { SignInRefusal } from "../../shared/log.ts";
import type { RequestContext } from "../../shared/request-context.ts";
import type { VariableName } from "../../shared/variables.ts";
import type { HTML } from "../html.ts";

/** Somebody who signed in. */
export interface Identity {
  principal: string;
  /** The rule of the configuration that allows it: one of the method's `rules`. */
  rule: string;
}

/** What was wrong with the form that was sent. `at` is a method's name, `scopes` for that part of the form, or `top`. */
export interface Problem {
  at: string;
  message: string;
  status: number;
  headers?: Record<string, string>;
}

/** Somebody whom the method did not identify by the form. */
export interface RefusedForm {
  refused: SignInRefusal;
  problem: Problem;
}

/** Somebody who came back from another site and may not sign in; the texts are for them. */
export interface RefusedRedirect {
  refused: SignInRefusal;
  title: string;
  message: string;
  status: number;
}

/** How the consent page shows a method. */
export interface Appearance {
  /** The verb of the button: "Approve" or, on the way to the panel, "Sign in". */
  verb: string;
  isPanel: boolean;
  /** Whether it is the only method on the page. */
  isAlone: boolean;
  /** What was wrong with the last try of this method. */
  alert: HTML | false | undefined;
  isFocused: boolean;
}

/** A method that this browser can use. */
export interface Offer {
  /** The part of the form with its button, whose name is `decision` and whose value is the method's name. */
  show(appearance: Appearance): HTML;
  /** The origin where its sign-in happens, if elsewhere: the form may lead there. */
  origin?: string;
}

interface Method {
  /** In the log, in grants, in forms, and before the colon of principals' ids: it never changes. */
  name: string;
  /** A variable that turns it on. */
  variable: VariableName;
  isOn(context: Pick<RequestContext, "config" | "env">): boolean;
  /**
   * The rules by which people may sign in now. A grant names the rule that allowed it and is checked against them at every
   * use of its tokens, so it ends with its rule. They are part of stored grants: their spelling never changes.
   */
  rules(config: Config): Promise<readonly string[]> | readonly string[];
}

/** Identifies people by the form itself. */
export interface FormMethod extends Method {
  /** Undefined where this browser cannot use it; `absence` tells its person so if no other method is there. */
  offer(request: Request, context: RequestContext): Promise<Offer | undefined>;
  absence?: { title: string; message: string };
  identify(
    form: URLSearchParams,
    request: Request,
    context: RequestContext,
  ): Promise<Identity | RefusedForm | undefined>;
}

/** What binds the way to another site and back to this browser and this server. */
export interface SignInRedirect {
  /** PKCE's verifier. */
  verifier: string;
  /** Where the other site sends the browser back: `/authorize/<name>`. */
  redirectURI: string;
}

/** Sends people to another site, which sends them back with a code. */
export interface RedirectMethod extends Method {
  /** What people call the site. */
  title: string;
  offer(request: Request, context: RequestContext): Promise<Offer>;
  signInURL(config: Config, passage: SignInRedirect & { state: string }): Promise<string>;
  /** Who the code is of, and whether they may sign in. */
  identify(
    code: string,
    passage: SignInRedirect,
    context: RequestContext,
  ): Promise<Identity | RefusedRedirect>;
}

export type SignInMethod = FormMethod | RedirectMethod;
