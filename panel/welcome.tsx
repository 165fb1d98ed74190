/** The first page: sandboxes and recent runs. */
import { useEffect, useState } from "preact/hooks";
import { sandboxOf } from "../src/runs/id.ts";
import { DEFAULT_SANDBOX } from "../src/shared/names.ts";
import type { ListedSandbox, SandboxListing } from "../src/shared/sandbox-listing.ts";
import { size } from "./format.ts";
import { host } from "./host.ts";
import type { ListedRun, RunListing } from "../src/shared/run-listing.ts";
import { useOffered } from "./offered.ts";
import { poll, POLL_MS } from "./poll.ts";
import { CONNECT, hrefOf } from "./route.ts";
import { RunLink } from "./run-link.tsx";
import { Time } from "./time.tsx";
import { callTool } from "./tools.ts";
import { deletedSandboxes, LOADING_RUNS, NO_RUNS, NO_SANDBOXES } from "./texts.ts";

/** How many recently used sandboxes the page shows in detail. The page's navigation lists all sandboxes. */
const SHOWN_SANDBOXES = 8;

/** How many recently used sandboxes the page asks for runs, each by a call. */
const ASKED_SANDBOXES = 5;

const SHOWN_RUNS = 10;

export function Welcome({ listing }: { listing: SandboxListing }) {
  const { sandboxes, checkpoints } = listing;
  const names = new Set(sandboxes.map(({ name }) => name));
  const deleted = [...new Set(checkpoints.map(({ sandbox }) => sandbox))].filter((name) => !names.has(name));
  return (
    <>
      <h1>Your sandboxes</h1>
      {sandboxes.length === 0 ? (
        <NoSandboxes />
      ) : (
        <Sandboxes sandboxes={sandboxes.slice(0, SHOWN_SANDBOXES)} />
      )}
      <RecentRuns sandboxes={sandboxes} />
      {deleted.length > 0 && (
        <p>
          {deletedSandboxes(
            deleted.map((name, index) => (
              <span key={name}>
                {index > 0 && ", "}
                <a href={hrefOf(name, "about")}>{name}</a>
              </span>
            )),
          )}
        </p>
      )}
    </>
  );
}

function NoSandboxes() {
  const isOffered = useOffered();
  return (
    <>
      <p>{NO_SANDBOXES}</p>
      <div class="together">
        {host().endpoint && (
          <a class="button" href={CONNECT}>
            Connect a client
          </a>
        )}
        {isOffered("run_command") && (
          <a class="button plain" href={hrefOf(DEFAULT_SANDBOX)}>
            Run a command
          </a>
        )}
      </div>
    </>
  );
}

function Sandboxes({ sandboxes }: { sandboxes: readonly ListedSandbox[] }) {
  return (
    <ul class="runs" aria-label="Sandboxes used last">
      {sandboxes.map(({ name, state, last_used_at: usedAt, size_bytes: bytes, saved_bytes: savedBytes }) => {
        const shownBytes = state === "running" ? bytes : savedBytes;
        return (
          <li key={name}>
            <a href={hrefOf(name)}>
              <span class={`state ${state === "running" ? "running" : ""}`}>{state}</span>
              <span class="title">{name}</span>
              <span class="soft">
                {shownBytes !== undefined && `${size(shownBytes)}, `}used <Time iso={usedAt} />
              </span>
            </a>
          </li>
        );
      })}
    </ul>
  );
}

function RecentRuns({ sandboxes }: { sandboxes: readonly ListedSandbox[] }) {
  const isOffered = useOffered();
  const [runsBySandbox, setRunsBySandbox] = useState<Record<string, readonly ListedRun[]>>({});
  const asked = isOffered("list_runs") ? sandboxes.slice(0, ASKED_SANDBOXES) : [];
  const names = asked.map(({ name }) => name);
  // Sorted by name, so that using a sandbox does not repeat the calls.
  const key = asked.map(({ name, state }) => `${name} ${state}`).toSorted();
  useEffect(() => {
    const ends = asked.map(({ name, state }) =>
      poll(
        async (signal) => {
          const args = { sandbox: name, limit: SHOWN_RUNS };
          const { data } = await callTool<RunListing>("list_runs", args, signal);
          signal.throwIfAborted();
          setRunsBySandbox((before) => ({ ...before, [name]: data.runs }));
          // While a sandbox is stopped, no run of it begins.
          const mayChange = state === "running" || data.runs.some((run) => run.state === "running");
          return mayChange ? POLL_MS.list_runs : undefined;
        },
        // If the connection has a problem, the list of sandboxes shows it.
        () => undefined,
      ),
    );
    return () => ends.forEach((end) => end());
  }, [key.join()]);
  const runs = names
    .flatMap((name) => runsBySandbox[name] ?? [])
    .toSorted((one, other) => other.started_at.localeCompare(one.started_at))
    .slice(0, SHOWN_RUNS);
  if (!isOffered("list_runs")) return null;
  return (
    <>
      <h2 id="recent">Recent runs</h2>
      {runs.length === 0 ? (
        <p class="soft">{names.every((name) => runsBySandbox[name]) ? NO_RUNS : LOADING_RUNS}</p>
      ) : (
        <ul class="runs" aria-labelledby="recent">
          {runs.map((run) => (
            <li key={run.id}>
              <RunLink run={run} sandbox={sandboxOf(run.id) ?? ""} isSandboxShown />
            </li>
          ))}
        </ul>
      )}
    </>
  );
}
