/** Shows how to connect each client, with settings to copy. */
import { useState } from "preact/hooks";
import { PlainButton } from "./controls.tsx";
import { clientLines, formatted } from "../src/server/client-lines.ts";

export function Connect({ url }: { url: string }) {
  return (
    <>
      <h1>Connect a client</h1>
      <p>Clients that sign in by OAuth (claude.ai, for example) need only the address of this server:</p>
      <Block text={url} label="the address" />
      <p>
        All other clients send a token. Replace <code>&lt;token&gt;</code> below by the owner's token:{" "}
        <code>npm run token</code> in the server's directory prints the token. On Cloudflare, the token is the
        secret SERVER_AUTH_TOKEN.
      </p>
      {clientLines(url, { shell: "<token>", written: "<token>" }).map((line) => (
        <section key={line.client}>
          <h2>
            {line.client} {line.file && <span class="soft">{line.file}</span>}
          </h2>
          <Block text={formatted(line)} label={`the configuration of ${line.client}`} />
          {line.link && (
            <p>
              <a href={line.link}>Add to {line.client}</a> <span class="soft">signs in without a token</span>
            </p>
          )}
        </section>
      ))}
    </>
  );
}

function Block({ text, label }: { text: string; label: string }) {
  const [isCopied, setCopied] = useState(false);
  const copy = () =>
    navigator.clipboard.writeText(text).then(
      () => setCopied(true),
      () => undefined,
    );
  return (
    <div class="block">
      <pre tabIndex={0}>{text}</pre>
      {/* Browsers have no clipboard for pages over plain HTTP, except on loopback. */}
      {window.isSecureContext && (
        <PlainButton aria-label={`Copy ${label}`} onClick={copy}>
          {isCopied ? "Copied" : "Copy"}
        </PlainButton>
      )}
    </div>
  );
}
