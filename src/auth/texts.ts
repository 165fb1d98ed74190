/** Texts of the sign-in pages, and of errors for programs. page.ts has the layout; consent-page.ts and methods/ have the form. */
import type { Scope } from "../shared/principal.ts";
import { sentence } from "../shared/sentence.ts";
import type { HTML } from "./html.ts";

export interface PageMessage {
  title: string;
  message: string;
}

export const SCOPE_TEXTS: Record<Scope, string> = {
  "sandbox:read": "See your sandboxes, their files and the results of runs",
  "sandbox:write": "Write files in /workspace and /tmp, and delete sandboxes with everything in them",
  "sandbox:exec": "Run code and commands, write files anywhere in your sandboxes, and stop runs",
  "tasks:run": "Give tasks to a coding agent, which uses the server's model account",
};

// The consent page

const TERMS = "Access ends 30 days from now at the latest.";

export const CONSENT_TEXTS = {
  unnamed: "An app without a name",
  asks: (app: HTML) => sentence`${app} asks for access to your sandboxes`,
  /** The browser's title of the page. */
  title: (app: string) => `${app} asks for access`,
  titleOfError: (title: string) => `Error: ${title}`,
  publishedBy: (domain: HTML) => sentence`Published by ${domain}. ${TERMS}`,
  unverified: `The app chose this name itself, and nobody has checked it. ${TERMS}`,
  panel: "Sign in to the panel",
  panelTerms:
    "The panel shows your sandboxes in this browser. You are signed out after 7 days at the latest.",
  server: "Server",
  returnTo: "You return to",
  scopes: "What the app may do",
  panelScopes: "What the panel may do",
  /** Shown after the address of the redirect. Any local program may listen on its port and claim any client name. */
  onThisComputer:
    ", a program on this computer. Continue only if you have just started to connect it yourself.",
  approve: "Approve",
  deny: "Deny",
  panelCancel: "Cancel",
  or: "or",
};
export const NO_SCOPE_TICKED = "Select at least one permission, or deny.";
export const NO_METHOD: PageMessage = {
  title: "No sign-in method is available",
  message: "No sign-in method works in this browser. Contact the operator.",
};
export const NOT_IDENTIFIED_TEXT = "The server could not identify you. Choose a sign-in method below.";
export const OTHER_SITES_FORM: PageMessage = {
  title: "This form was sent from another site",
  message: "Nothing was approved. Start again from your app.",
};
export const notConfirmed = (method: string): PageMessage => ({
  title: "You did not sign in",
  message: `${method} did not confirm who you are.`,
});
export const APP_NOT_VERIFIED: PageMessage = {
  title: "This app cannot be verified",
  message: "The server could not read the app's metadata document. Try again later.",
};
export const STORAGE_SILENT = "The server's storage did not respond. Try again in a few seconds.";
export const STORAGE_SILENT_PAGE: PageMessage = { title: "Try again in a moment", message: STORAGE_SILENT };
export const unexpected = (ref: string): PageMessage => ({
  title: "Something went wrong",
  message: `Nothing was approved. Try again, or tell the operator (ref ${ref}).`,
});
export const PAGE_EXPIRED: PageMessage = {
  title: "This page has expired",
  message:
    "It was already used, is older than ten minutes, or was opened in another browser. Nothing was approved. Start the sign-in again.",
};
export const START_AGAIN = "Start again";
export const APP_NOT_REGISTERED: PageMessage = {
  title: "This app is not registered",
  message:
    "Its registration has expired, or belongs to an earlier server at this address. Nothing was approved. In the app, remove this server and add it again.",
};

/** @param hasLink whether the page has a link back to the app */
export function badRequest(problem: string, hasLink: boolean): PageMessage {
  const next = `${hasLink ? "" : " Connect the app again."} If you see this page again, contact the app's developer.`;
  return {
    title: "This request is not valid",
    message: `${problem.replace(/\.?$/, ".")} Nothing was approved.${next}`,
  };
}

export const REQUEST_PROBLEMS = {
  tooLong: "The request is too long.",
  repeated: "The request has the same parameter twice.",
  unknownClient: "The client_id is not registered with this server.",
  noChallenge: "The app did not send a code_challenge of method S256 (PKCE), which this server requires.",
  badRedirect:
    "The app wants you to return to an address (redirect_uri) that is not registered or not allowed.",
  badResponseType: "The app must request the response_type code, and be registered for it.",
  badResource: "The app's request does not name exactly one resource of this server.",
  onlyAssertions: "The app authenticates only by keys (private_key_jwt), which this server does not support.",
  noScope: "This server has none of the requested scopes.",
  badForm: "The form cannot be read.",
};

// The panel's session

export const SIGN_IN = "Sign in";
export const NOT_SIGNED_IN = "You are not signed in";
export const SIGN_IN_EXPIRED =
  "This sign-in was already used, is older than ten minutes, or was begun in another browser.";
export const NOT_APPROVED = "Nothing was approved.";

// Requests of programs

export const CALLER_TEXTS = {
  noTokenConfigured:
    "No token is configured on this server, so nobody can sign in. The operator has to set SERVER_AUTH_TOKEN or AUTH_TOKENS.",
  noToken: "Send a token in the Authorization header: Bearer <token>.",
  invalidToken: "The token is not valid for this server.",
  unchecked: "The token could not be checked just now. Try again in a few seconds.",
  needsScopes: (needed: readonly string[], missing: readonly string[]) =>
    `This request needs the scopes ${needed.join(" ")}; the token lacks ${missing.join(" ")}.`,
  panelOff: (why: string) => `The panel is off: ${why}.`,
  panelSignIn: "Sign in to the panel.",
  panelSessionEnded: "The session has ended. Sign in to the panel again.",
  notFromPanel: "Only the panel's own page may send this request.",
};
export const ENDPOINT_TEXTS = {
  broken: "The request body broke off",
  tooLarge: "The request is too large",
  tooSlow: "The request body took too long",
  parameterTooLong: "A parameter is too long",
  noAssertions: "The server supports no client assertions. Send the client_id without one, and use PKCE",
  forbiddenRedirect:
    "A redirect URI must not point to a preview or have a scheme of browsers, and its host must be a valid name or address",
  privateUseWithSecret:
    "Only a public client (token_endpoint_auth_method none) may use redirect URIs with an app's own scheme",
  grantEnded: "The sign-in behind this grant is no longer valid",
  noDocument: "The client's metadata document cannot be fetched, or is not valid. Try again later",
};

/** Why OAuth is off, as a clause. */
export const OAUTH_OFF = {
  noStore: "the KV namespace OAUTH_KV is not bound",
  noMethod: (variables: readonly string[]) =>
    `no sign-in method is configured; set one of ${variables.join(", ")}`,
  noOrigin: "PUBLIC_ORIGIN is not set",
  notHTTPS: "PUBLIC_ORIGIN is not an https origin",
};

// Sign-in methods

export const gatewaySilent = (gateway: string): PageMessage => ({
  title: `${gateway} did not identify you`,
  message: `This server lets ${gateway} identify people, but your request does not show who you are. Open this page through the address that ${gateway} protects.`,
});
export const backTo = (host: string) => `Go back to ${host}`;
export const siteButton = (site: string, isPanel: boolean) =>
  `${isPanel ? SIGN_IN : "Approve and sign in"} with ${site}`;
/** @param verb the text of the button that approves */
export const approveAs = (verb: string, person: HTML) => sentence`${verb} as ${person}`;
export const userRefused = (site: string, login: string): PageMessage => ({
  title: "You may not use this server",
  message: `You are signed in to ${site} as ${login}. This account may not use the server. Ask the operator for access.`,
});
export const siteFailed = (site: string, ref: string): PageMessage => ({
  title: `${site} did not respond`,
  message: `${site} did not identify you. Start again from your app (ref ${ref}).`,
});

// The owner's token

export const TOKEN_TEXTS = {
  legend: SIGN_IN,
  label: "The server's token",
  approve: (verb: string) => `${verb} with the token`,
  isSecret: "It is the secret SERVER_AUTH_TOKEN of the server.",
  command: (command: HTML) => sentence`On the server's machine, ${command} prints it.`,
  wrong: "This is not the server's token. Nothing was approved.",
  tooMany: (seconds: number) =>
    `Too many wrong tokens. Wait ${seconds <= 90 ? `${seconds} seconds` : `${Math.ceil(seconds / 60)} minutes`} before the next try.`,
};
