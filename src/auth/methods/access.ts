/** Sign-in by Cloudflare Access, which protects `/authorize` and names the person in a signed header. */
import { createRemoteJWKSet, errors, jwtVerify } from "jose";
import { logError } from "../../shared/log.ts";
import type { RequestContext } from "../../shared/request-context.ts";
import { markup, makePlain } from "../html.ts";
import { approveAs } from "../texts.ts";
import type { FormMethod, MethodConfig, Rule } from "./method.ts";

const NAME = "access";

interface Settings {
  /** The team's origin, which is the issuer of its assertions. */
  issuer: string;
  audience: string;
  certsURL: string;
}

function settingsOf({ values }: MethodConfig<typeof NAME>): Settings | undefined {
  const { ACCESS_TEAM_DOMAIN: issuer, ACCESS_AUDIENCE: audience } = values;
  if (issuer === undefined || audience === undefined) return undefined;
  return { issuer, audience, certsURL: values.ACCESS_CERTS_URL ?? `${issuer}/cdn-cgi/access/certs` };
}

export const access: FormMethod<typeof NAME> = {
  name: NAME,
  variable: "ACCESS_TEAM_DOMAIN",
  isOn: ({ config }) => settingsOf(config) !== undefined,
  rules: (config) => {
    const settings = settingsOf(config);
    return settings ? [ruleOf(settings)] : [];
  },
  gateway: "Cloudflare Access",
  async offer(request, context) {
    const identity = await identityOf(request, context);
    if (!identity) return undefined;
    return {
      isOneClick: true,
      show: ({ verb, button }) => markup`<input type="hidden" name="who" value="${identity.email}">
<button ${button} formnovalidate>${approveAs(verb, markup`<bdi>${makePlain(identity.email)}</bdi>`)}</button>`,
    };
  },
  async identify(form, request, context) {
    const settings = settingsOf(context.config);
    const identity = await identityOf(request, context);
    // The person may have changed accounts since the page was shown.
    if (!settings || !identity || form.get("who") !== identity.email) return undefined;
    return { principal: `${NAME}:${identity.subject}`, rule: ruleOf(settings) };
  },
};

function ruleOf({ issuer, audience }: Settings): Rule<typeof NAME> {
  return `${NAME}:${issuer} ${audience}`;
}

type KeySet = ReturnType<typeof createRemoteJWKSet>;

/** The team's signing keys by URL. Fetched on first use, and again when they are old or a key is unknown. */
const keySets = new Map<string, KeySet>();

async function identityOf(request: Request, context: RequestContext) {
  const settings = settingsOf(context.config);
  if (!settings) return undefined;
  try {
    return await verifyAssertion(request, settings);
  } catch (error) {
    logError(context, NAME, error);
    return undefined;
  }
}

/** The person; undefined without a valid assertion, and for a service token. @throws if the team's keys cannot be fetched */
async function verifyAssertion(request: Request, { issuer, audience, certsURL }: Settings) {
  const assertion = request.headers.get("cf-access-jwt-assertion");
  if (!assertion) return undefined;
  const keys = keySets.get(certsURL) ?? createRemoteJWKSet(new URL(certsURL));
  keySets.set(certsURL, keys);
  try {
    const { payload } = await jwtVerify(assertion, keys, {
      issuer,
      audience,
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

/** Whether the error means that the assertion is invalid. Other errors mean that the keys are unavailable. */
function isRefusal(error: unknown): boolean {
  return (
    error instanceof errors.JOSEError &&
    !(error instanceof errors.JWKSTimeout) &&
    !(error instanceof errors.JWKSInvalid) &&
    error.code !== "ERR_JOSE_GENERIC"
  );
}
