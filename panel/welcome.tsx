/** The first page: what there is, and how to connect a client. */
import { clientLines } from "../src/server/client-lines.ts";
import { host } from "./host.ts";
import type { SandboxListing } from "../src/shared/sandbox-listing.ts";
import { hrefOf } from "./route.ts";

export function Welcome({ listing }: { listing: SandboxListing }) {
  const isNew = listing.sandboxes.length === 0;
  const { endpoint } = host();
  const names = new Set(listing.sandboxes.map(({ name }) => name));
  const gone = [...new Set(listing.checkpoints.map(({ sandbox }) => sandbox))].filter(
    (name) => !names.has(name),
  );
  return (
    <>
      <h1>{isNew && endpoint ? "Connect a client" : "Your sandboxes"}</h1>
      {isNew ? (
        <p>
          You have no sandbox yet. A client makes one when its model first runs something, and so do you with{" "}
          <a href={hrefOf("default")}>a command of yours</a>.
        </p>
      ) : (
        <p>
          Choose one to see what runs in it.
          {endpoint && " To work in them from a client, connect it:"}
        </p>
      )}
      {gone.length > 0 && (
        <p>
          Checkpoints are left of sandboxes that are no more:{" "}
          {gone.map((name, index) => (
            <span key={name}>
              {index > 0 && ", "}
              <a href={hrefOf(name, "about")}>{name}</a>
            </span>
          ))}
        </p>
      )}
      {endpoint && <Connecting url={endpoint} />}
    </>
  );
}

function Connecting({ url }: { url: string }) {
  return (
    <>
      <p>The address of this server, which is all that clients need that sign in by OAuth:</p>
      <pre tabIndex={0}>{url}</pre>
      <p>
        Others send a token, which stands for <code>&lt;token&gt;</code> below: <code>npm run token</code> in
        the server's directory prints it, and on Cloudflare it is the secret SERVER_AUTH_TOKEN.
      </p>
      {clientLines(url, { shell: "<token>", written: "<token>" }).map(({ client, file, text }) => (
        <section key={client}>
          <h2>
            {client} {file && <span class="soft">{file}</span>}
          </h2>
          <pre tabIndex={0}>{text}</pre>
        </section>
      ))}
    </>
  );
}
