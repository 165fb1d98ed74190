/** Shows how to connect each client, with settings to copy. */
import { useRef, useState } from "preact/hooks";
import { PlainButton } from "./controls.tsx";
import { clientLines, formatted } from "../src/server/client-lines.ts";
import { CONNECT_TEXTS } from "./texts.ts";

export function Connect({ url }: { url: string }) {
  return (
    <>
      <h1>Connect a client</h1>
      <p>{CONNECT_TEXTS.oauth}</p>
      <Block text={url} label="the address" />
      <p>{CONNECT_TEXTS.token(<code>&lt;token&gt;</code>, <code>npm run token</code>)}</p>
      {clientLines(url, { shell: "<token>", written: "<token>" }).map((line) => (
        <section key={line.client}>
          <h2>
            {line.client} {line.file && <span class="soft">{line.file}</span>}
          </h2>
          <Block text={formatted(line)} label={`the configuration of ${line.client}`} />
          {line.link && (
            <p>
              <a href={line.link}>Add to {line.client}</a>{" "}
              <span class="soft">{CONNECT_TEXTS.addedByOAuth}</span>
            </p>
          )}
        </section>
      ))}
    </>
  );
}

function Block({ text, label }: { text: string; label: string }) {
  const [isCopied, setCopied] = useState(false);
  const shown = useRef<HTMLPreElement>(null);
  const copy = () => {
    // Browsers have no clipboard for pages over plain HTTP, except on loopback.
    if (!window.isSecureContext) return setCopied(copyContent(shown.current));
    return navigator.clipboard.writeText(text).then(
      () => setCopied(true),
      () => setCopied(copyContent(shown.current)),
    );
  };
  return (
    <div class="block">
      <pre ref={shown} tabIndex={0}>
        {text}
      </pre>
      <PlainButton aria-label={`Copy ${label}`} onClick={copy}>
        {isCopied ? "Copied" : "Copy"}
      </PlainButton>
    </div>
  );
}

/** Selects the content and copies the selection. If copying fails, the user can copy the selected content. */
function copyContent(element: HTMLElement | null): boolean {
  if (element) getSelection()?.selectAllChildren(element);
  return document.execCommand("copy");
}
