/** Schemas for values of variables. An issue's message ends a sentence that begins with the variable's name. */
import * as z from "zod";
import { MAX_HOSTS, parseHostEntry } from "./network-policy.ts";

/**
 * An empty variable counts as unset, because `.dev.vars` and CI systems write unset variables as empty text. White space around a
 * value is removed, because a secret piped into `wrangler secret put` ends with a newline. This changes no valid value, because
 * none begins or ends with white space.
 */
export function fromEnv<T>(schema: z.ZodType<T, string>, fallback: T | undefined) {
  const trimmed = z.string("must be a text variable").trim();
  return z.preprocess(
    (value) => (typeof value === "string" && value.trim() === "" ? undefined : value),
    trimmed
      .pipe(schema)
      .optional()
      .transform((value) => value ?? fallback),
  );
}

/** Text that can follow "Bearer ". It must be long, because the server does not count guesses at /mcp. */
export const ownerToken = z
  .string()
  .regex(/^[\x21-\x7e]+$/, "must be visible ASCII characters without spaces")
  .min(16, "must be at least 16 characters, and random: openssl rand -hex 32 makes one")
  .refine(
    (token) => !isRepetitive(token),
    "must be random, but repeats a few characters: openssl rand -hex 32 makes one",
  );

/** Whether a text has fewer than five different characters, or repeats a part. */
function isRepetitive(text: string): boolean {
  const steps = Array.from({ length: Math.floor(text.length / 2) }, (_, index) => index + 1);
  return new Set(text).size < 5 || steps.some((step) => text.startsWith(text.slice(step)));
}

/** Refuses a value in a transformation of zod. */
export function refuse(context: z.RefinementCtx, message: string): never {
  context.addIssue({ code: "custom", message });
  return z.NEVER;
}

export function hostEntry(text: string, context: z.RefinementCtx): string {
  const parsed = parseHostEntry(text);
  return "entry" in parsed ? parsed.entry : refuse(context, parsed.problem);
}

export function list<T>(entry: z.ZodType<T, string>) {
  return z
    .string()
    .transform((text) => text.split(",").flatMap((part) => part.trim() || []))
    .pipe(z.array(entry));
}

/** An `http` or `https` origin as browsers send it: lower case, no default port, no trailing slash. */
export function webOrigin(text: string, context: z.RefinementCtx): string {
  const url = URL.parse(text);
  const isOrigin = url?.pathname === "/" && !/[?#@\\*]/.test(text);
  if (isOrigin && /^https?:$/.test(url.protocol) && /^https?:\/\//i.test(text)) return url.origin;
  return refuse(context, "must be an origin such as https://example.com, without a path");
}

/**
 * The host name of previews, with a port unless the port is 443. Names below it need a certificate, and names below a
 * `workers.dev` name have none.
 */
export function hostName(text: string, context: z.RefinementCtx): string {
  const url = URL.parse(`https://${text}`);
  const isName =
    url &&
    !/[/?#@\\*]/.test(text) &&
    /^[a-z0-9-]+(\.[a-z0-9-]+)*$/.test(url.hostname) &&
    !/\.?\d+$/.test(url.hostname);
  if (isName && !url.hostname.endsWith(".workers.dev")) return url.host;
  return refuse(
    context,
    "must be a host name such as preview.example.com, and not below workers.dev, which has no subdomains",
  );
}

/** An `http` or `https` URL for appending paths, without a trailing slash. */
export function baseURL(text: string, context: z.RefinementCtx): string {
  const url = URL.parse(text);
  if (url && /^https?:$/.test(url.protocol) && !/[?#@\\*]/.test(text)) return url.href.replace(/\/+$/, "");
  return refuse(context, "must be a URL such as https://example.com/api");
}

/** Like `webOrigin`, but also accepts an application's origin with its own scheme (a browser extension, a desktop shell). */
export function anyOrigin(text: string, context: z.RefinementCtx): string {
  const hasOwnScheme = /^[a-z][a-z0-9+.-]*:\/\/[^/?#@\\*\s]+$/i.test(text) && !/^(https?|file):/i.test(text);
  return hasOwnScheme ? text.toLowerCase() : webOrigin(text, context);
}

export function areUnique(values: readonly string[]): boolean {
  return new Set(values).size === values.length;
}

/** Text that can be a header's value. A secret with other characters could not be sent. */
export function headerValue() {
  return visibleText("must be visible ASCII characters without spaces");
}

export function visibleText(message: string) {
  return z.string("is missing").regex(/^[\x21-\x7e]+$/, message);
}

/** A schema that reads a time with its time zone and returns milliseconds since the epoch. */
export function time() {
  return z.iso
    .datetime({ offset: true, error: "must be a time with its zone, such as 2026-12-31T12:00:00Z" })
    .transform((text) => Date.parse(text));
}

export function allowHosts<T extends z.ZodType<string[]>>(entries: T) {
  return entries.refine((hosts) => hosts.length <= MAX_HOSTS, `must have at most ${MAX_HOSTS} hosts`);
}

/** One of several words, in upper or lower case. Reports about the configuration may show it. */
export function choice<const T extends string>(words: readonly T[]) {
  const message = words.length === 2 ? `must be ${words.join(" or ")}` : `must be one of ${words.join(", ")}`;
  return z.string().toLowerCase().pipe(z.enum(words, message)).meta({ isShowable: true });
}

/** A whole number of at least 1, as text. Reports about the configuration may show it. */
export function count(max: number, min = 1) {
  const message = `must be a whole number from ${min} to ${max}`;
  return z
    .string()
    .regex(/^\d{1,9}$/, message)
    .transform(Number)
    .pipe(z.number().min(min, message).max(max, message))
    .meta({ isShowable: true });
}

export function fromJSON(text: string, context: z.RefinementCtx): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The parser's own message is not used, because it quotes the text.
    return refuse(context, "is not valid JSON");
  }
}
