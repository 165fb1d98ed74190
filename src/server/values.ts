/** The forms a variable's value can have. A parser's issue is a sentence's end, for the variable's name to stand before. */
import { z } from "zod";

/**
 * A variable that is empty counts as unset, which is how `.dev.vars` and CI systems spell it. Surrounding white space
 * goes: a secret piped into `wrangler secret put` brings its newline along, and no value here can contain any.
 */
export function variable<T extends z.ZodType<unknown, string>>(schema: T) {
  const trimmed = z.string("must be a text variable").trim();
  return z.preprocess(
    (value) => (typeof value === "string" && value.trim() === "" ? undefined : value),
    trimmed.pipe(schema).optional(),
  );
}

/** Entries between commas; spaces around them and empty ones do not count. */
export function list<T>(entry: z.ZodType<T, string>) {
  return z
    .string()
    .transform((text) => text.split(",").flatMap((part) => part.trim() || []))
    .pipe(z.array(entry));
}

/** An `http` or `https` origin in the form browsers send it: lower case, no default port, no trailing slash. */
export function webOrigin(text: string, context: z.RefinementCtx): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const bare = url && url.pathname === "/" && !/[?#@\\*]/.test(text);
  if (bare && /^https?:$/.test(url.protocol) && /^https?:\/\//i.test(text)) return url.origin;
  context.addIssue({
    code: "custom",
    message: "must be an origin such as https://example.com, without a path",
  });
  return z.NEVER;
}

/** An `http` or `https` URL to put paths behind, without a trailing slash. */
export function baseURL(text: string, context: z.RefinementCtx): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url && /^https?:$/.test(url.protocol) && !/[?#@\\*]/.test(text)) return url.href.replace(/\/+$/, "");
  context.addIssue({ code: "custom", message: "must be a URL such as https://example.com/api" });
  return z.NEVER;
}

/** As `webOrigin`, or that of an application with a scheme of its own (a browser extension, a desktop shell). */
export function anyOrigin(text: string, context: z.RefinementCtx): string {
  const own = /^[a-z][a-z0-9+.-]*:\/\/[^/?#@\\*\s]+$/i.test(text) && !/^(https?|file):/i.test(text);
  return own ? text.toLowerCase() : webOrigin(text, context);
}
