/**
 * Credentials that the server adds to requests of sandboxes and that no sandbox has: what may be written of one, whose and
 * where it is, and how a request gets it. Pure functions.
 */
import { z } from "zod";
import { headerValue, unique } from "./env-fields.ts";
import { type NetworkPolicy, allowsHost, isAddress, parseHostEntry, PACKAGES } from "./network-policy.ts";

/** Stands in a template for the value. */
const VALUE = "{value}";

/** Secrets of one server at most. */
const MAX_SECRETS = 100;

/** Hosts of one secret at most. */
const MAX_SECRET_HOSTS = 20;

/**
 * The mask tells code that has its own text come back whether a whole value is in it. A processor looks at some 2^26 characters
 * a second, each of which may begin a guess: of 12 hexadecimal digits it finds a random value in weeks, of 16 in millennia.
 */
const MIN_VALUE_LENGTH = 16;

/** Where a request gets a value. `template` has `{value}` once; in `basic` it is the user and the password. */
export interface SecretPlace {
  in: "header" | "query" | "basic";
  /** The header in lower case, or the parameter of the query. */
  name: string;
  template: string;
}

export interface Secret {
  name: string;
  /** Entries as in a list of allowed hosts, without addresses and without the word for package registries. */
  hosts: readonly string[];
  place: SecretPlace;
  value: string;
  /** Ids of the principals whose sandboxes use it; undefined for everybody. */
  principals: readonly string[] | undefined;
  /** The variable that has a placeholder in sandboxes, for programs that insist on a key. */
  variable: string | undefined;
}

/** The host by which a task's agent reaches its model. */
export const MODEL_HOST = "anthropic.internal";

/** Stands for the server itself among principals: what it alone uses, as the credential for the model. */
export const SERVER = "server";

/** The secrets that sandboxes of a principal use. */
export function secretsFor(secrets: readonly Secret[], principalID: string | undefined): Secret[] {
  return secrets.filter(({ principals }) => principals?.includes(principalID ?? "") ?? true);
}

/** The secrets for a host. @param host in its canonical form */
export function secretsAt(secrets: readonly Secret[], host: string): Secret[] {
  const covers = ({ hosts }: Secret) => allowsHost(policyOf(hosts), host);
  return secrets.filter(covers);
}

function policyOf(allowHosts: readonly string[]): NetworkPolicy {
  return { internet: "allowlist", allowHosts };
}

/**
 * Puts secrets into a request, each in its place, where it replaces what the sandbox has written. Of two for one place the
 * first counts. Another header that holds a placeholder of theirs goes: some programs send their key in two, and a host may
 * refuse a request for the one that is wrong. @returns those that were put in
 */
export function putIn(secrets: readonly Secret[], headers: Headers, url: URL): Secret[] {
  const places = new Set<string>();
  const used = secrets.filter((secret) => {
    const { name, in: kind } = secret.place;
    const place = `${kind === "query" ? "?" : ""}${name}`;
    if (places.has(place)) return false;
    places.add(place);
    if (kind === "query") url.search = withParameter(url.search, name, written(secret));
    else headers.set(name, written(secret));
    return true;
  });
  const wrong = used.map(placeholderOf);
  const misplaced = [...headers].filter(([, text]) => wrong.some((one) => text.includes(one)));
  for (const [name] of misplaced) headers.delete(name);
  return used;
}

/** What stands in the place of a secret. */
function written({ place, value }: Secret): string {
  const text = place.template.replace(VALUE, () => value);
  return place.in === "basic" ? `Basic ${btoa(text)}` : text;
}

/** A query with one parameter set and the others as they were written: their spelling may be part of a signature. */
function withParameter(search: string, name: string, value: string): string {
  const others = search
    .slice(1)
    .split("&")
    .filter((part) => part !== "" && !new URLSearchParams(part).has(name));
  return `?${[...others, `${percentEncoded(name)}=${percentEncoded(value)}`].join("&")}`;
}

/** With every character encoded that is reserved anywhere (RFC 3986, 2.3). */
function percentEncoded(text: string): string {
  const rest = (character: string) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`;
  return encodeURIComponent(text).replace(/[!'()*]/g, rest);
}

/** What a program that insists on a key is given. It stands nowhere for the value: the place of a secret is overwritten. */
export function placeholderOf({ name }: Secret): string {
  return `sandbox-mcp-secret-${name}`;
}

/** The variables that hold placeholders. */
export function placeholders(secrets: readonly Secret[]): Record<string, string> {
  return Object.fromEntries(
    secrets.flatMap((secret) =>
      secret.variable === undefined ? [] : [[secret.variable, placeholderOf(secret)]],
    ),
  );
}

/** A text by which an answer could give a value away. */
export interface SecretTrace {
  text: string;
  /** Whether the characters of base64 before and after it have bits of the value. */
  sharesFirst: boolean;
  sharesLast: boolean;
}

/** The value as it is, and in base64 with whatever stands before and after it. */
export function tracesOf({ place, value }: Secret): SecretTrace[] {
  const traces = [0, 1, 2].map((before) => within64(value, before));
  if (place.in === "basic")
    traces.push(
      within64(
        place.template.replace(VALUE, () => value),
        0,
      ),
    );
  return [{ text: value, sharesFirst: false, sharesLast: false }, ...traces];
}

/** The characters of base64 that depend on a text alone when so many bytes stand before it, modulo 3. */
function within64(text: string, before: number): SecretTrace {
  const encoded = btoa("\0".repeat(before) + text).replace(/=+$/, "");
  const bits = (before + text.length) * 8;
  const whole = encoded.slice(Math.ceil((before * 8) / 6), Math.floor(bits / 6));
  return { text: whole, sharesFirst: before > 0, sharesLast: bits % 6 > 0 };
}

/** Headers that say how a message goes on, not what it says. */
const REFUSED_HEADERS =
  /^(?:host|content-length|transfer-encoding|connection|upgrade|te|trailer|expect|range|accept-encoding|proxy-.*|cf-.*)$/;

const VISIBLE = /^[\x20-\x7e]+$/;

const template = z
  .string("must be text")
  .regex(VISIBLE, "must be visible ASCII characters")
  .max(1000, "must have 1000 characters at most")
  .refine((text) => text.split(VALUE).length === 2, `must have ${VALUE} in it, once`);

const secret = z
  .strictObject(
    {
      name: z
        .string("is missing")
        .regex(
          /^[A-Za-z][A-Za-z0-9_-]{0,31}$/,
          "must be 1 to 32 of letters, digits, - and _, a letter first",
        ),
      hosts: z
        .array(z.string("must be text").transform(secretHost), "must be a list of hosts")
        .min(1, "must name at least one host")
        .max(MAX_SECRET_HOSTS, `must hold ${MAX_SECRET_HOSTS} hosts at most`),
      header: template.optional(),
      query: template.optional(),
      basic: template.optional(),
      value: headerValue()
        .min(
          MIN_VALUE_LENGTH,
          `must have at least ${MIN_VALUE_LENGTH} characters, and be random: code in a sandbox can guess a shorter one`,
        )
        .max(5000, "must have 5000 characters at most"),
      principals: z.array(z.string("must be text"), "must be a list of ids").optional(),
      variable: z
        .string("must be text")
        .regex(/^[A-Z][A-Z0-9_]{0,63}$/, "must be a name of capital letters, digits and _")
        .optional(),
    },
    // The default message lists the unknown keys, and one could be a value pasted into the wrong place.
    "must be an object of name, hosts, value, one of header, query and basic, and perhaps principals and variable, and nothing else",
  )
  .transform(({ header, query, basic, principals, variable, ...rest }, context): Secret => {
    const places = [inHeader(header), inQuery(query), inBasic(basic)].filter((one) => one !== undefined);
    const [place] = places;
    if (place === undefined || places.length > 1)
      context.addIssue({ code: "custom", message: "must have one of header, query and basic" });
    else if ("problem" in place) context.addIssue({ code: "custom", message: place.problem });
    else return { ...rest, place, principals, variable };
    return z.NEVER;
  });

/** The schema of `SECRETS`. No message of it has a value in it. */
export const secretList = z
  .array(secret, "must be a JSON list")
  .max(MAX_SECRETS, `must hold ${MAX_SECRETS} secrets at most`)
  .refine((secrets) => unique(secrets.map(({ name }) => name)), "must not use one name twice")
  .refine(
    (secrets) => unique(secrets.flatMap((one) => one.variable ?? [])),
    "must not use one variable twice",
  );

type Parsed = SecretPlace | { problem: string } | undefined;

function inHeader(text: string | undefined): Parsed {
  if (text === undefined) return undefined;
  const [, header = "", rest = ""] = /^([A-Za-z0-9!#$%&'*+.^_`|~-]+): *(.*)$/.exec(text) ?? [];
  const name = header.toLowerCase();
  if (!rest.includes(VALUE))
    return { problem: `must have a header of the form "Authorization: Bearer ${VALUE}"` };
  return REFUSED_HEADERS.test(name)
    ? { problem: "must not have a header that the connection itself needs" }
    : { in: "header", name, template: rest };
}

function inQuery(text: string | undefined): Parsed {
  if (text === undefined) return undefined;
  const [, name = "", rest = ""] = /^([^=&#{}]+)=(.*)$/.exec(text) ?? [];
  return rest.includes(VALUE)
    ? { in: "query", name, template: rest }
    : { problem: `must have a query of the form "key=${VALUE}"` };
}

function inBasic(text: string | undefined): Parsed {
  if (text === undefined) return undefined;
  return text.includes(":")
    ? { in: "basic", name: "authorization", template: text }
    : { problem: `must have basic of the form "user:${VALUE}"` };
}

/** An entry of `hosts` in its one form. */
function secretHost(text: string, context: z.RefinementCtx): string {
  const parsed = parseHostEntry(text);
  const entry = "entry" in parsed ? parsed.entry : PACKAGES;
  const isOurs = allowsHost(policyOf([entry]), MODEL_HOST);
  if (entry !== PACKAGES && !isAddress(entry) && !isOurs) return entry;
  const message = isOurs
    ? `must not cover ${MODEL_HOST}, by which tasks reach their model`
    : "must be the name of a host (api.example.com) or *.name for all names below it; no scheme, port, path or address";
  context.addIssue({ code: "custom", message });
  return z.NEVER;
}
