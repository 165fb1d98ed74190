/** Credentials that the server adds to sandboxes' requests: their format, scope and placement. They are in no sandbox. */
import * as z from "zod";
import { headerValue, refuse, areUnique } from "./env-fields.ts";
import { type NetworkPolicy, allowsHost, isAddress, parseHostEntry, PACKAGES } from "./network-policy.ts";

const VALUE = "{value}";

const MAX_SECRETS = 100;

const MAX_SECRET_HOSTS = 20;

/** Values must be too long to guess: code can send guesses to a host that echoes them, and learns from the mask which one is right. */
const MIN_VALUE_LENGTH = 16;

/** The place of a value in a request. `template` contains `{value}` once; for `basic` it is the user and password. */
export interface SecretPlace {
  in: "header" | "query" | "basic";
  name: string;
  template: string;
}

export interface Secret {
  name: string;
  /** Entries as in a list of allowed hosts, without addresses and `packages`. */
  hosts: readonly string[];
  place: SecretPlace;
  value: string;
  /** Ids of the principals that may use it in their sandboxes; undefined for everybody. */
  principals: readonly string[] | undefined;
  /** The variable that contains a placeholder in sandboxes, for programs that require a key. */
  variable: string | undefined;
}

export const MODEL_HOST = "anthropic.internal";

/** The server itself as a principal, for example for the model's credential. */
export const SERVER = "server";

export function secretsFor(secrets: readonly Secret[], principalID: string | undefined): Secret[] {
  return secrets.filter(({ principals }) => principals?.includes(principalID ?? "") ?? true);
}

/** @param host in canonical form */
export function secretsOfHost(secrets: readonly Secret[], host: string): Secret[] {
  return secrets.filter(({ hosts }) => allowsHost(allowlistOf(hosts), host));
}

function allowlistOf(allowHosts: readonly string[]): NetworkPolicy {
  return { internet: "allowlist", allowHosts };
}

/**
 * Puts secrets into a request, and overwrites the values that the sandbox wrote in their places. If two secrets have the same
 * place, the first counts. Other headers with a placeholder are removed: some programs send their key twice, and a host may
 * refuse the wrong one.
 * @returns the secrets used
 */
export function addSecrets(secrets: readonly Secret[], headers: Headers, url: URL): Secret[] {
  const places = new Set<string>();
  const used = secrets.filter((secret) => {
    const { name, in: kind } = secret.place;
    const place = `${kind === "query" ? "?" : ""}${name}`;
    if (places.has(place)) return false;
    places.add(place);
    if (kind === "query") url.search = setParameter(url.search, name, formatSecret(secret));
    else headers.set(name, formatSecret(secret));
    return true;
  });
  const usedPlaceholders = used.map(placeholderOf);
  const misplaced = [...headers].filter(([, text]) =>
    usedPlaceholders.some((placeholder) => text.includes(placeholder)),
  );
  for (const [name] of misplaced) headers.delete(name);
  return used;
}

function formatSecret({ place, value }: Secret): string {
  const text = place.template.replace(VALUE, () => value);
  return place.in === "basic" ? `Basic ${btoa(text)}` : text;
}

/** A query with one parameter set and the others unchanged, because their spelling may be part of a signature. */
function setParameter(search: string, name: string, value: string): string {
  const parts = search.slice(1).split("&");
  const otherParameters = parts.filter((part) => part !== "" && !new URLSearchParams(`&${part}`).has(name));
  return `?${[...otherParameters, `${percentEncode(name)}=${percentEncode(value)}`].join("&")}`;
}

/** Encodes every reserved character (RFC 3986, 2.3). */
function percentEncode(text: string): string {
  const encodeCharacter = (character: string) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`;
  return encodeURIComponent(text).replace(/[!'()*]/g, encodeCharacter);
}

/**
 * The placeholder for programs that require a key. The server does not put the value where the placeholder is: `addSecrets` sets
 * the value in the secret's own place, and removes other headers that contain the placeholder.
 */
function placeholderOf({ name }: Secret): string {
  return `sandbox-mcp-secret-${name}`;
}

export function placeholders(secrets: readonly Secret[]): Record<string, string> {
  return Object.fromEntries(
    secrets.flatMap((secret) =>
      secret.variable === undefined ? [] : [[secret.variable, placeholderOf(secret)]],
    ),
  );
}

/** The texts that would reveal a value in a response: the value, and what base64 makes of it. */
export function tracesOf({ place, value }: Secret): string[] {
  const traces = [value, ...[0, 1, 2].map((before) => base64Trace(value, before))];
  if (place.in === "basic")
    traces.push(
      base64Trace(
        place.template.replace(VALUE, () => value),
        0,
      ),
    );
  return traces;
}

/** The base64 characters that depend only on the text, if `before` bytes (modulo 3) precede the text. */
function base64Trace(text: string, before: number): string {
  const encoded = btoa("\0".repeat(before) + text);
  return encoded.slice(Math.ceil((before * 8) / 6), Math.floor(((before + text.length) * 8) / 6));
}

const REFUSED_HEADERS =
  /^(?:host|content-length|transfer-encoding|connection|upgrade|te|trailer|expect|range|accept-encoding|proxy-.*|cf-.*)$/;

const VISIBLE = /^[\x20-\x7e]+$/;

const template = z
  .string("must be text")
  .regex(VISIBLE, "must be visible ASCII characters")
  .max(1000, "must have at most 1000 characters")
  .refine((text) => text.split(VALUE).length === 2, `must contain ${VALUE} exactly once`);

const secret = z
  .strictObject(
    {
      name: z
        .string("is missing")
        .regex(
          /^[A-Za-z][A-Za-z0-9_-]{0,31}$/,
          "must be 1 to 32 letters, digits, - and _, with a letter first",
        ),
      hosts: z
        .array(z.string("must be text").transform(secretHost), "must be a list of hosts")
        .min(1, "must name at least one host")
        .max(MAX_SECRET_HOSTS, `must have at most ${MAX_SECRET_HOSTS} hosts`),
      header: template.optional(),
      query: template.optional(),
      basic: template.optional(),
      value: headerValue()
        .min(
          MIN_VALUE_LENGTH,
          `must have at least ${MIN_VALUE_LENGTH} characters, and be random: code in a sandbox can guess a shorter one`,
        )
        .max(5000, "must have at most 5000 characters"),
      principals: z.array(z.string("must be text"), "must be a list of ids").optional(),
      variable: z
        .string("must be text")
        .regex(/^[A-Z][A-Z0-9_]{0,63}$/, "must be a name of capital letters, digits and _")
        .optional(),
    },
    // The default message lists unknown keys, and one could be a value pasted into the wrong place.
    "must be an object with name, hosts and value, with exactly one of header, query or basic, and optionally principals and variable; no other keys",
  )
  .transform(({ header, query, basic, principals, variable, ...rest }, context): Secret => {
    const places = [headerPlace(header), queryPlace(query), basicPlace(basic)].filter(
      (place) => place !== undefined,
    );
    const [place] = places;
    if (place === undefined || places.length > 1)
      return refuse(context, "must have one of header, query and basic");
    if ("problem" in place) return refuse(context, place.problem);
    return { ...rest, place, principals, variable };
  });

/** The schema of `SECRETS`. Its messages never contain a value. */
export const secretList = z
  .array(secret, "must be a JSON list")
  .max(MAX_SECRETS, `must have at most ${MAX_SECRETS} secrets`)
  .refine((secrets) => areUnique(secrets.map(({ name }) => name)), "must not use one name twice")
  .refine(
    (secrets) => areUnique(secrets.flatMap(({ variable }) => variable ?? [])),
    "must not use one variable twice",
  );

type Parsed = SecretPlace | { problem: string } | undefined;

function headerPlace(text: string | undefined): Parsed {
  if (text === undefined) return undefined;
  const [, header = "", rest = ""] = /^([A-Za-z0-9!#$%&'*+.^_`|~-]+): *(.*)$/.exec(text) ?? [];
  const name = header.toLowerCase();
  if (!rest.includes(VALUE))
    return { problem: `must have a header of the form "Authorization: Bearer ${VALUE}"` };
  return REFUSED_HEADERS.test(name)
    ? { problem: "must not have a header that the connection itself needs" }
    : { in: "header", name, template: rest };
}

function queryPlace(text: string | undefined): Parsed {
  if (text === undefined) return undefined;
  const [, name = "", rest = ""] = /^([^=&#{}]+)=(.*)$/.exec(text) ?? [];
  return rest.includes(VALUE)
    ? { in: "query", name, template: rest }
    : { problem: `must have a query of the form "key=${VALUE}"` };
}

function basicPlace(text: string | undefined): Parsed {
  if (text === undefined) return undefined;
  return text.includes(":")
    ? { in: "basic", name: "authorization", template: text }
    : { problem: `must have basic of the form "user:${VALUE}"` };
}

function secretHost(text: string, context: z.RefinementCtx): string {
  const parsed = parseHostEntry(text);
  const entry = "entry" in parsed ? parsed.entry : PACKAGES;
  const isOurs = allowsHost(allowlistOf([entry]), MODEL_HOST);
  if (entry !== PACKAGES && !isAddress(entry) && !isOurs) return entry;
  const message = isOurs
    ? `must not cover ${MODEL_HOST}, by which tasks reach their model`
    : "must be the name of a host (api.example.com) or *.name for all names below it; no scheme, port, path or address";
  return refuse(context, message);
}
