/** A sandbox's runs: the list, and one open run with live output. */
import { useEffect, useRef, useState } from "preact/hooks";
import { PlainButton, VERBATIM } from "./controls.tsx";
import { isTaskID } from "../src/runs/id.ts";
import type { ListedPreview } from "../src/shared/sandbox-listing.ts";
import { startSize } from "../src/shared/terminal/size.ts";
import { useRun, useRunDetails } from "./use-run.ts";
import { duration, size } from "./format.ts";
import { host } from "./host.ts";
import type { ListedRun, RunListing } from "../src/shared/run-listing.ts";
import { LogView } from "./log-view.tsx";
import { useOffered } from "./offered.ts";
import { escapeOrdering } from "./escape-ordering.ts";
import { refresh, useList } from "./poll.ts";
import { PreviewFrame } from "./preview.tsx";
import { Result } from "./result.tsx";
import { RunLink, State } from "./run-link.tsx";
import { hrefOf } from "./route.ts";
import { Task } from "./task.tsx";
import { isFresh, likelySize, noteStartSize, Terminal, type TerminalState } from "./terminal.tsx";
import { callTool, showError } from "./tools.ts";
import { useAction } from "./use-action.ts";
import { Typing } from "./typing.tsx";
import { WindowedList } from "./windowed.tsx";
import * as texts from "./texts.ts";

const PAGE = 50;

interface RunsProps {
  sandbox: string;
  open: string;
  isThere: boolean;
  previews: readonly ListedPreview[];
  problemShownAbove: string | undefined;
}

export function RunList({ sandbox, open, isThere, previews, problemShownAbove }: RunsProps) {
  const [older, setOlder] = useState<RunListing>({ runs: [] });
  const listRequest = { sandbox, limit: PAGE };
  const listed = useList<RunListing>("list_runs", isThere || open !== "" ? listRequest : undefined);
  const [problem, setProblem] = useState<string>();
  const newest = listed.value?.runs ?? [];
  const runs = [...newest, ...older.runs.filter(({ id }) => !newest.some((run) => run.id === id))];
  const nextCursor = older.runs.length > 0 ? older.next_cursor : listed.value?.next_cursor;
  const loadMore = () =>
    callTool<RunListing>("list_runs", { ...listRequest, cursor: nextCursor }).then(
      ({ data: page }) => setOlder((before) => ({ ...page, runs: [...before.runs, ...page.runs] })),
      (error: unknown) => showError(error, setProblem),
    );
  const isOffered = useOffered();
  const shownProblem = problem ?? (listed.problem === problemShownAbove ? undefined : listed.problem);
  return (
    <>
      {isOffered("run_command") && <Start sandbox={sandbox} />}
      <div role="alert">{shownProblem && <p class="note">{shownProblem}</p>}</div>
      {open !== "" && (
        <OpenRun
          key={open}
          id={open}
          run={runs.find(({ id }) => id === open)}
          sandbox={sandbox}
          previews={previews}
          problemShownAbove={problemShownAbove}
        />
      )}
      <h2 id="runs">Runs</h2>
      {runs.length === 0 ? (
        <p class="soft">{listed.value || !isThere ? texts.NO_RUNS_HERE : texts.LOADING_RUNS}</p>
      ) : (
        <WindowedList
          class="runs"
          labelledBy="runs"
          items={runs}
          keyOf={({ id }) => id}
          row={(run) => <RunLink run={run} sandbox={sandbox} isOpen={run.id === open} />}
        />
      )}
      {nextCursor && <PlainButton onClick={loadMore}>Older runs</PlainButton>}
    </>
  );
}

const LIMITS: [words: string, seconds: number][] = [
  ["10 minutes", 600],
  ["1 hour", 3600],
  ["6 hours", 21_600],
];

function Start({ sandbox }: { sandbox: string }) {
  const isOffered = useOffered();
  const { problem, isBusy, act } = useAction();
  const start = (event: Event) => {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    const fields = new FormData(form);
    const command = String(fields.get("command"));
    if (isBusy || command.trim() === "") return;
    void act(async () => {
      const interactive = fields.has("interactive");
      const timeout_seconds = Number(fields.get("limit"));
      const terminal = interactive && host().canReachServer ? likelySize() : undefined;
      const { data } = await callTool<{ id: string }>("run_command", {
        sandbox,
        command,
        env: terminal && startSize(terminal),
        // A separate session, because a session starts its next command only after the terminal's command has ended.
        session: terminal && `panel-${crypto.randomUUID().slice(0, 8)}`,
        interactive,
        timeout_seconds,
        wait_seconds: 0,
      });
      if (terminal) noteStartSize(data.id, terminal);
      form.reset();
      refresh();
      host().go(hrefOf(sandbox, "runs", data.id));
    });
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    (event.currentTarget as HTMLTextAreaElement).form?.requestSubmit();
  };
  return (
    <form class="start" onSubmit={start}>
      <label for="command">
        Run a command <span class="soft">{texts.COMMAND_KEYS}</span>
      </label>
      <textarea id="command" name="command" rows={1} {...VERBATIM} onKeyDown={onKeyDown} />
      <div class="together">
        <label for="limit">Time limit</label>
        <select id="limit" name="limit">
          {LIMITS.map(([words, seconds]) => (
            <option key={words} value={seconds}>
              {words}
            </option>
          ))}
        </select>
        {isOffered("send_input") && (
          <label class="check">
            <input type="checkbox" name="interactive" /> Interactive terminal
          </label>
        )}
        <button disabled={isBusy}>{isBusy ? "Starting" : "Run"}</button>
      </div>
      <div role="alert">{problem && <p class="note error">{problem}</p>}</div>
    </form>
  );
}

/** Texts in place of output, by the run's state. */
const EMPTY_TEXTS: Record<string, string> = { unknown: texts.LOADING_RUN, running: texts.NO_OUTPUT_YET };

interface OpenRunProps {
  id: string;
  run: ListedRun | undefined;
  sandbox: string;
  previews: readonly ListedPreview[];
  problemShownAbove: string | undefined;
}

function OpenRun({ id, run, sandbox, previews, problemShownAbove }: OpenRunProps) {
  const [port, setPort] = useState<number>();
  const preview = previews.find((known) => known.port === port);
  const isOffered = useOffered();
  const [shape, setShape] = useState<"terminal" | "lines" | undefined>(isFresh(id) ? "terminal" : undefined);
  const [terminal, setTerminal] = useState<TerminalState>();
  const lines = useRun(shape === "terminal" ? undefined : id);
  const followed = { ...lines, ...(shape === "terminal" && terminal) };
  const mayBeTerminal = lines.isInteractive && host().canReachServer;
  useEffect(() => {
    if (mayBeTerminal && shape === undefined) setShape("terminal");
  }, [mayBeTerminal]);
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    // Takes the focus only from inside the page: in a chat, the user may be typing outside it.
    if (document.hasFocus()) heading.current?.focus();
  }, [id]);
  const state = followed.state ?? run?.state;
  const isTask = isTaskID(id);
  // The program that answers a question is complete when output begins, so the run is loaded again at that time.
  const loadKey = followed.state && `${followed.state}${isTask && followed.bytes > 0 ? " begun" : ""}`;
  const runDetails = useRunDetails(id, loadKey);
  const { fields = run, content } = runDetails;
  const source = runDetails.fields?.source.trim() ?? "";
  const problem = [followed.problem, runDetails.problem].find(
    (one) => one !== undefined && one !== problemShownAbove,
  );
  const wasCancelled = useRef(false);
  useEffect(() => {
    // The button "Cancel" had the focus, and is no longer on the page.
    if (wasCancelled.current && state !== "running") heading.current?.focus({ preventScroll: true });
  }, [state]);
  return (
    <section class="run" aria-label="Selected run">
      <h2 ref={heading} tabIndex={-1}>
        <bdi>{escapeOrdering(fields?.title ?? id)}</bdi>
      </h2>
      {source !== "" && source !== fields?.title && (
        <details>
          <summary>Show all</summary>
          <pre class="source" tabIndex={0}>
            {escapeOrdering(source)}
          </pre>
        </details>
      )}
      <div class="together">
        <p role="status">
          {state && <State state={state} />}
          {followed.exitCode !== undefined && ` exit code ${followed.exitCode}`}
        </p>
        <p class="soft">
          {followed.bytes > 0 && `${size(followed.bytes)} of output`}
          {fields && followed.bytes > 0 && ", "}
          {fields && <Duration ms={fields.duration_ms} isRunning={state === "running"} />}
        </p>
        {state === "running" && isOffered("cancel_run") && (
          <Cancel id={id} onCancel={() => (wasCancelled.current = true)} />
        )}
        {previews.map(
          (known) =>
            known.url && (
              <button
                key={known.port}
                type="button"
                class="plain"
                aria-pressed={known.port === port}
                onClick={() => setPort(known.port === port ? undefined : known.port)}
              >
                Open port {known.port}
              </button>
            ),
        )}
        {shape !== undefined && (
          <PlainButton onClick={() => setShape(shape === "terminal" ? "lines" : "terminal")}>
            {shape === "terminal" ? "Show as text" : "Show as terminal"}
          </PlainButton>
        )}
        <a class="button plain" href={hrefOf(sandbox)}>
          Close
        </a>
      </div>
      <div role="alert">{problem && <p class="note">{problem}</p>}</div>
      {followed.log.isCut && <p class="soft">{texts.ONLY_END}</p>}
      <div class={preview?.url ? "beside" : ""}>
        <div>
          {shape === "terminal" ? (
            <Terminal id={id} onState={setTerminal} onImpossible={() => setShape("lines")} />
          ) : isTask ? (
            <Task id={id} followed={followed} details={runDetails} />
          ) : followed.bytes > 0 ? (
            <LogView log={followed.log} version={followed.version} label="Output" />
          ) : (
            <p class="soft">{EMPTY_TEXTS[state ?? "unknown"] ?? texts.NO_OUTPUT}</p>
          )}
          {lines.isInteractive && isOffered("send_input") && <Typing id={id} />}
        </div>
        {preview?.url && <PreviewFrame port={preview.port} url={preview.url} />}
      </div>
      {fields?.kind === "code" && fields.state !== "running" && content.length > 0 && (
        <>
          <h3>Result</h3>
          <Result blocks={content} />
        </>
      )}
    </section>
  );
}

function Duration({ ms, isRunning }: { ms: number; isRunning: boolean }) {
  const [extraMs, setExtra] = useState(0);
  useEffect(() => {
    setExtra(0);
    if (!isRunning) return undefined;
    const from = performance.now();
    const timer = setInterval(() => setExtra(performance.now() - from), 1000);
    return () => clearInterval(timer);
  }, [ms, isRunning]);
  return <>{duration(ms + extraMs)}</>;
}

function Cancel({ id, onCancel }: { id: string; onCancel: () => void }) {
  const { problem, isBusy, act } = useAction();
  const cancel = () => {
    onCancel();
    void act(() => callTool("cancel_run", { id }));
  };
  return (
    <>
      <PlainButton disabled={isBusy} onClick={cancel}>
        {isBusy ? "Cancelling" : "Cancel"}
      </PlainButton>
      <span role="alert">{problem}</span>
    </>
  );
}
