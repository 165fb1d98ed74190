/** The layout of all pages, with headers that deny everything a page does not need. */
import { HTML, markup } from "./html.ts";
import { sha256 } from "../shared/sha256.ts";

const STYLE = `
:root {
  color-scheme: light dark;
  --back: #f4f5f7; --card: #fff; --text: #1b1f24; --soft: #57606a; --line: #d0d7de; --field: #fff;
  --accent: #0b5cad; --accent-text: #fff; --error: #b3261e; --error-back: #fdeeec; --warn: #7a4d00; --warn-back: #fff6e0;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #0e1116; --card: #171b21; --text: #e8ebef; --soft: #a3adb8; --line: #3a424c; --field: #0e1116;
    --accent: #7db7f5; --accent-text: #0a1a2b; --error: #ffb4ab; --error-back: #3b1512; --warn: #f2cf8d; --warn-back: #33260a;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
main { max-width: 34rem; margin: 0 auto; padding: 1.25rem; background: var(--card); min-height: 100vh; }
@media (min-width: 38rem) {
  body { padding: 2.5rem 1rem; }
  main { min-height: 0; padding: 2rem; border: 1px solid var(--line); border-radius: 12px; }
}
@media (min-width: 60rem) {
  body { padding-top: 1rem; padding-bottom: 1rem; }
  main.wide { max-width: 58rem; }
  .wide form { display: grid; grid-template-columns: 1fr 1fr; gap: 2rem; }
}
h1 { font-size: 1.375rem; line-height: 1.3; margin: 0 0 1rem; text-wrap: balance; }
h2, legend { font-size: 1rem; font-weight: 600; margin: 0; padding: 0; }
p { margin: 0 0 1rem; }
main > :last-child, main > :last-child > :last-child { margin-bottom: 0; }
.soft { color: var(--soft); font-size: .9375rem; }
dl { margin: 0 0 1.25rem; border: 1px solid var(--line); border-radius: 8px; }
dl div { padding: .625rem .875rem; }
dl div + div { border-top: 1px solid var(--line); }
dt { color: var(--soft); font-size: .875rem; }
dd { margin: 0; }
dd strong { font-weight: 600; }
pre {
  margin: .25rem 0 1.25rem; padding: .625rem .875rem; font-size: .8125rem; white-space: pre-wrap; background: var(--back);
  border: 1px solid var(--line); border-radius: 8px;
}
fieldset { border: 0; margin: 0 0 1.25rem; padding: 0; min-width: 0; }
legend { margin-bottom: .25rem; }
fieldset .note { margin: .5rem 0; }
.field { display: block; }
fieldset .soft { margin: 0; }
.scope { display: flex; gap: .75rem; align-items: flex-start; min-height: 44px; padding: .5rem 0; cursor: pointer; }
.scope + .scope { border-top: 1px solid var(--line); }
.scope input { flex: none; width: 1.25rem; height: 1.25rem; margin: .125rem 0 0; accent-color: var(--accent); }
.scope code { display: block; color: var(--soft); font-size: .8125rem; }
.drop { border: 2px dashed var(--soft); border-radius: 8px; padding: 1rem; margin: 0 0 1rem; }
.drop.over { border-color: var(--accent); background: var(--back); }
.drop[hidden] { display: none; }
.drop button { margin: 0; }
input[type=file] { width: 100%; min-height: 44px; padding: .5rem 0; font: inherit; color: inherit; }
progress { width: 100%; accent-color: var(--accent); }
button:disabled { opacity: .6; cursor: default; }
input[type=password], input[type=text] {
  width: 100%; min-height: 44px; padding: .5rem .75rem; font: inherit; color: inherit; background: var(--field);
  border: 1px solid var(--soft); border-radius: 8px; margin: .5rem 0 0;
}
input[aria-invalid=true] { border-color: var(--error); }
button, .button {
  display: block; width: 100%; min-height: 44px; padding: .5rem 1rem; margin: 0 0 .75rem; font: inherit; font-weight: 600;
  text-align: center; text-decoration: none; border-radius: 8px; border: 1px solid var(--accent); cursor: pointer;
  background: var(--accent); color: var(--accent-text);
}
button.plain, .button.plain { background: none; color: var(--text); border-color: var(--soft); }
button:hover, .button:hover { filter: brightness(1.08); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
@media (hover: hover) and (pointer: fine) {
  .late { position: relative; }
  .late::after { content: ""; position: absolute; inset: 0; }
  html:hover .late::after { visibility: hidden; transition: visibility 0s 1s; }
}
.or { color: var(--soft); text-align: center; margin: 0 0 .75rem; font-size: .9375rem; }
.note { padding: .75rem .875rem; border-radius: 8px; border-left: 4px solid; margin: 0 0 1.25rem; }
.error { color: var(--error); background: var(--error-back); }
.warn { color: var(--warn); background: var(--warn-back); }
`;

/**
 * A button that approves by one click. The click counts only after the pointer has been over the page for a second, because
 * another page could show itself above this one and disappear at the first click of a double click.
 */
export function approvalButton(button: HTML): HTML {
  return markup`<div class="late">${button}</div>`;
}

/** Headers of a page for a signed-in person. A page of another site that opened it could otherwise replace it with an imitation. */
export const OWN_WINDOW = { "cross-origin-opener-policy": "same-origin" };

let styleHash: string | undefined;

/** @param options `formTargets`: CSP sources, besides this server, to which the browser may send or redirect the form */
export async function page(
  title: string,
  body: HTML,
  {
    status = 200,
    formTargets = [] as readonly string[],
    headers = new Headers(),
    wide = false,
    /** Our own script; it may send requests to this server. */
    script = "",
  } = {},
): Promise<Response> {
  styleHash ??= await hashSource(STYLE);
  const policy = [
    "default-src 'none'",
    `style-src ${styleHash}`,
    ...(script ? [`script-src ${await hashSource(script)}`, "connect-src 'self'"] : []),
    // Chromium also applies this directive to redirects after the form is sent.
    `form-action ${["'self'", ...formTargets].join(" ")}`,
    "frame-ancestors 'none'",
    "base-uri 'none'",
  ];
  headers.set("cache-control", "no-store");
  const content = markup`<main${wide && markup` class="wide"`}>
${body}
</main>
${script && markup`<script>${new HTML(script)}</script>`}`;
  const head = markup`<style>${new HTML(STYLE)}</style>`;
  return htmlDocument({ title, head, body: content, policy, status, headers });
}

interface Document {
  title: string;
  head: HTML;
  body: HTML;
  policy: readonly string[];
  status?: number;
  headers: Headers;
}

/** A complete document that cannot be framed. @param policy its Content-Security-Policy */
export function htmlDocument({ title, head, body, policy, status, headers }: Document): Response {
  headers.set("content-type", "text/html; charset=utf-8");
  headers.set("content-security-policy", policy.join("; "));
  headers.set("x-frame-options", "DENY");
  // With "no-referrer", browsers would send forms with `Origin: null`.
  headers.set("referrer-policy", "same-origin");
  headers.set("cross-origin-resource-policy", "same-origin");
  headers.set("permissions-policy", "camera=(), geolocation=(), microphone=()");
  const { text } = markup`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>${title}</title>
${head}
</head>
<body>
${body}
</body>
</html>
`;
  return new Response(text, { status, headers });
}

async function hashSource(text: string): Promise<string> {
  return `'sha256-${btoa(String.fromCharCode(...(await sha256(text))))}'`;
}
