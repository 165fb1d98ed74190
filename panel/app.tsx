import { useState } from "preact/hooks";
import { Facts, PlainButton, SearchField, VERBATIM } from "./controls.tsx";
import { About } from "./about.tsx";
import { Connect } from "./connect.tsx";
import { FileBrowser } from "./file-browser.tsx";
import { share, size } from "./format.ts";
import { host } from "./host.ts";
import { SANDBOX_NAME, SANDBOX_NAME_FORM } from "../src/shared/names.ts";
import type { SandboxListing } from "../src/shared/sandbox-listing.ts";
import { Offered, useOffered } from "./offered.ts";
import { useList, usePolled } from "./poll.ts";
import { CONNECT, hrefOf, type Part, PARTS, type Route, useRoute } from "./route.ts";
import { RunList } from "./run-list.tsx";
import { isSignedOut, showError } from "./tools.ts";
import { useValue, Value } from "./value.ts";
import { Welcome } from "./welcome.tsx";
import { WindowedList } from "./windowed.tsx";
import * as texts from "./texts.ts";

const TOOL_OF: Record<Part, string> = { runs: "list_runs", files: "list_files", about: "list_sandboxes" };

const NAMES: Record<Part, string> = { runs: "Runs", files: "Files", about: "Overview" };

/** The pause between polls of the list of tools. The list changes only with the server's configuration. */
const TOOLS_MS = 600_000;

const NO_FILTER = {};

export function App() {
  return useValue(isSignedOut) ? <SignIn /> : <Panel />;
}

function SignIn() {
  return (
    <main class="card">
      <h1>Sandboxes</h1>
      <p>{texts.SIGN_IN_FIRST}</p>
      <p>
        <a class="button" href="/panel/sign-in">
          Sign in
        </a>
      </p>
    </main>
  );
}

function Panel() {
  const route = useRoute();
  const listed = useList<SandboxListing>("list_sandboxes", NO_FILTER);
  const tools = usePolled(listed.value && "tools", (signal) => host().listTools(signal), TOOLS_MS);
  const [problem, setProblem] = useState<string>();
  const { endpoint, signOut } = host();
  const endSession = () =>
    signOut?.().then(
      () => isSignedOut.set(true),
      (error: unknown) => showError(error, setProblem),
    );
  const shownProblem = problem ?? listed.problem ?? tools.problem;
  return (
    <>
      {route.sandbox !== "" && (
        <button type="button" class="skip" onClick={() => document.querySelector("main")?.focus()}>
          Skip to the sandbox
        </button>
      )}
      <header>
        <a class="brand" href="#/">
          Sandboxes
        </a>
        {endpoint && <a href={CONNECT}>Connect a client</a>}
        <Display />
        {signOut && <PlainButton onClick={endSession}>Sign out</PlainButton>}
      </header>
      <div role="alert">{shownProblem && <p class="note">{shownProblem}</p>}</div>
      {listed.value && tools.value ? (
        <Offered.Provider value={tools.value}>
          <div class={route.sandbox === "" ? "columns" : "columns open-sandbox"}>
            <Sandboxes listing={listed.value} route={route} />
            <main tabIndex={-1}>
              <Content listing={listed.value} route={route} problem={listed.problem} />
            </main>
            <aside class="more" aria-label="New sandbox and limits">
              <OpenOther />
              <Limits listing={listed.value} />
              <p class="soft">{texts.privacyText(listed.value.results_kept_days)}</p>
              {signOut && (
                <p>
                  <a href="/panel/git">Git hosts</a>
                </p>
              )}
            </aside>
          </div>
        </Offered.Provider>
      ) : (
        <main class="card">
          <h1>Sandboxes</h1>
          <p>{listed.problem ? texts.SANDBOXES_UNAVAILABLE : texts.LOADING_SANDBOXES}</p>
        </main>
      )}
    </>
  );
}

function Display() {
  const { display, show } = host();
  const mode = useValue(display ?? INLINE);
  if (!display) return null;
  const other = mode === "inline" ? "fullscreen" : "inline";
  return (
    <PlainButton onClick={() => void show(other).catch(() => undefined)}>
      {mode === "inline" ? "Full screen" : "Back to the chat"}
    </PlainButton>
  );
}

const INLINE = new Value<"inline" | "fullscreen">("inline");

interface PanelProps {
  listing: SandboxListing;
  route: Route;
}

/** From this many sandboxes on, the list has a search field. */
const SEARCH_FROM_SANDBOXES = 12;

function Sandboxes({ listing, route }: PanelProps) {
  const [wanted, setWanted] = useState("");
  const { sandboxes } = listing;
  if (sandboxes.length === 0) return null;
  const isLong = sandboxes.length > SEARCH_FROM_SANDBOXES;
  const found = isLong ? sandboxes.filter(({ name }) => name.toLowerCase().includes(wanted)) : sandboxes;
  return (
    <nav class={isLong ? "sandboxes long" : "sandboxes"} aria-label="Sandboxes">
      {isLong && <SearchField label="Find a sandbox" count={sandboxes.length} find={setWanted} />}
      {found.length === 0 && <p class="soft">{texts.NO_SANDBOX_FOUND}</p>}
      <div class="scroll">
        <WindowedList
          items={found}
          current={route.sandbox}
          keyOf={({ name }) => name}
          row={({ name, state }) => (
            <a href={hrefOf(name)} aria-current={name === route.sandbox ? "page" : undefined}>
              <span class={`dot ${state}`} aria-hidden="true" />
              {name} <span class="soft">{state}</span>
            </a>
          )}
        />
      </div>
    </nav>
  );
}

/** Opens a sandbox by name; its first command creates it if needed. */
function OpenOther() {
  const isOffered = useOffered();
  if (!isOffered("run_command")) return null;
  const open = (event: SubmitEvent) => {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    const name = String(new FormData(form).get("name"));
    form.reset();
    host().go(hrefOf(name));
  };
  return (
    <form class="open" onSubmit={open}>
      <label for="other">New sandbox</label>
      <div class="together">
        <input
          id="other"
          name="name"
          required
          pattern={SANDBOX_NAME.source}
          title={SANDBOX_NAME_FORM}
          {...VERBATIM}
        />
        <button class="plain">Create</button>
      </div>
    </form>
  );
}

function Limits({ listing }: { listing: SandboxListing }) {
  const running = listing.sandboxes.filter(({ state }) => state === "running").length;
  const rows: [string, string][] = [
    ["Sandboxes", share(listing.sandboxes.length, listing.max_sandboxes)],
    ["Running", share(running, listing.max_running_sandboxes)],
    ["Run time today", `${share(listing.run_seconds_today, listing.max_run_seconds_per_day)} s`],
    ["Model tokens today", share(listing.model_tokens_today, listing.max_model_tokens_per_day)],
    ["Results kept", `${size(listing.storage_bytes)} of ${size(listing.max_storage_bytes)}`],
    ["Workspaces saved", `${size(listing.workspace_bytes)} of ${size(listing.max_workspace_bytes)}`],
    ["Checkpoints", share(listing.checkpoints.length, listing.max_checkpoints)],
  ];
  return (
    <details class="limits">
      <summary>Limits</summary>
      <Facts rows={rows} />
    </details>
  );
}

function Content({ listing, route, problem }: PanelProps & { problem: string | undefined }) {
  const isOffered = useOffered();
  const { sandbox: name, part } = route;
  const { endpoint } = host();
  if (route.isConnect && endpoint) return <Connect url={endpoint} />;
  if (name === "") return <Welcome listing={listing} />;
  const sandbox = listing.sandboxes.find((known) => known.name === name);
  const parts = PARTS.filter((known) => isOffered(TOOL_OF[known]));
  return (
    <>
      <div class="heading">
        <h1>{name}</h1>
        <p class="soft">{sandbox ? sandbox.state : texts.NEW_SANDBOX}</p>
      </div>
      <nav class="parts" aria-label={`Parts of ${name}`}>
        {parts.map((known) => (
          <a key={known} href={hrefOf(name, known)} aria-current={known === part ? "page" : undefined}>
            {NAMES[known]}
          </a>
        ))}
      </nav>
      {part === "files" && sandbox ? (
        <FileBrowser key={name} sandbox={name} open={route.rest} />
      ) : part === "files" ? (
        <p>{texts.NO_FILES}</p>
      ) : part === "about" ? (
        <About key={name} name={name} sandbox={sandbox} listing={listing} />
      ) : (
        <RunList
          key={name}
          sandbox={name}
          open={route.rest}
          isThere={sandbox !== undefined}
          previews={sandbox?.previews ?? []}
          problemShownAbove={problem}
        />
      )}
    </>
  );
}
