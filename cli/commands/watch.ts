import { serverCommand, wholeNumber } from "../define-command.ts";
import { Server } from "../server-calls.ts";
import { alignRows, duration, escapeLine, line, oneLine, applyStyle } from "../print.ts";
import { toVisibleJSON } from "../../src/shared/shown.ts";
import { serverAddress } from "../server-address.ts";
import { type RunEvent, type SandboxEvent, watch as watchServer, type WatchEvent } from "../watcher.ts";

export const watch = serverCommand(
  "watch",
  "show sandboxes, runs and their output as they change; Ctrl-C ends it",
  ["watch", "watch --sandbox build --no-output", "watch --json | jq 'select(.event == \"run\")'"],
)
  .option("--sandbox <name>", "only this sandbox")
  .option("--interval <seconds>", "time between two updates", wholeNumber(1), 2)
  .option("--for <seconds>", "end after this time", wholeNumber(1))
  .option("--no-output", "do not show the output of runs")
  .action(async ({ sandbox, interval, for: seconds, output, json, ...options }) => {
    const server = await Server.connect(serverAddress(options));
    const end = new AbortController();
    const stop = () => end.abort();
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, stop);
    const timer = seconds === undefined ? undefined : setTimeout(stop, seconds * 1000);
    const screen = process.stdout.isTTY && !json ? new Screen() : undefined;
    try {
      await watchServer(server, {
        sandbox,
        intervalSeconds: interval,
        followsOutput: output,
        signal: end.signal,
        onEvent: screen ? (event) => screen.add(event) : json ? printAsJSON : printAsLine,
      });
    } finally {
      clearTimeout(timer);
      screen?.close();
    }
    await server.close();
  });

function printAsJSON(event: WatchEvent): void {
  line(toVisibleJSON({ at: new Date().toISOString(), ...event }));
}

/**
 * Prints the time, the event, the sandbox and the event's fields, separated by tabs. Prints such a line for each line of a run's
 * output.
 */
function printAsLine(event: WatchEvent): void {
  const put = (...cells: readonly string[]) =>
    line(
      [new Date().toISOString(), event.event, event.sandbox, ...cells.map((cell) => oneLine(cell))].join(
        "\t",
      ),
    );
  if (event.event === "sandbox") return put(event.state);
  if (event.event === "run") return put(event.id, event.kind, stateOf(event), event.title);
  for (const text of event.text.replace(/\r?\n$/, "").split("\n")) put(event.id, event.stream, text);
}

const stateOf = ({ state, exit_code }: RunEvent) =>
  exit_code === undefined || exit_code === 0 ? state : `${state} (${exit_code})`;

/** The time between screen updates, in milliseconds. */
const DRAW_MS = 200;

/** The number of runs, and of lines of output, kept for the screen. */
const MAX_KEPT = 200;

/** A full-screen view: sandboxes, runs, and the newest output below. */
class Screen {
  readonly #sandboxes = new Map<string, SandboxEvent>();
  readonly #runs = new Map<string, RunEvent & { seenAt: number }>();
  readonly #output: string[] = [];
  readonly #timer: NodeJS.Timeout;

  constructor() {
    // The alternate screen without a cursor, as in a pager; leaving it restores the terminal.
    process.stdout.write("\u001b[?1049h\u001b[?25l");
    this.#timer = setInterval(() => this.#draw(), DRAW_MS);
  }

  add(event: WatchEvent): void {
    if (event.event === "sandbox") {
      if (event.state === "destroyed") this.#sandboxes.delete(event.sandbox);
      else this.#sandboxes.set(event.sandbox, event);
    } else if (event.event === "run") {
      // Deleted and added again, so that the Map has the order of the changes.
      this.#runs.delete(event.id);
      this.#runs.set(event.id, { ...event, seenAt: Date.now() });
      const [oldest] = this.#runs.keys();
      if (this.#runs.size > MAX_KEPT && oldest !== undefined) this.#runs.delete(oldest);
    } else {
      const lines = event.text
        .replace(/\r?\n$/, "")
        .split("\n")
        .slice(-MAX_KEPT);
      this.#output.push(...lines.map((text) => `${event.sandbox}  ${oneLine(text)}`));
      this.#output.splice(0, this.#output.length - MAX_KEPT);
    }
  }

  close(): void {
    clearInterval(this.#timer);
    process.stdout.write("\u001b[?25h\u001b[?1049l");
  }

  #draw(): void {
    const { columns = 80, rows = 24 } = process.stdout;
    const third = Math.max(3, Math.floor(rows / 3) - 1);
    const sandboxes = alignRows(
      [{ title: "SANDBOX" }, { title: "STATE" }, { title: "LAST USED" }],
      [...this.#sandboxes.values()].map(({ sandbox, state, last_used_at }) => [
        sandbox,
        state,
        `${duration(Math.max(0, Date.now() - Date.parse(last_used_at)))} ago`,
      ]),
      columns,
    ).slice(0, third);
    const runs = alignRows(
      [
        { title: "RUN" },
        { title: "KIND", isMinor: true },
        { title: "STATE" },
        { title: "TOOK", isRightAligned: true, isMinor: true },
        { title: "WHAT" },
      ],
      [...this.#runs.values()]
        .toReversed()
        .map((run) => [
          run.id,
          run.kind,
          stateOf(run),
          duration(run.duration_ms + (run.state === "running" ? Date.now() - run.seenAt : 0)),
          oneLine(run.title),
        ]),
      columns,
    ).slice(0, third);
    const room = Math.max(1, rows - sandboxes.length - runs.length - 4);
    const output = this.#output.slice(-room).map((text) => oneLine(text, columns));
    const lines = [...sandboxes, "", ...runs, "", applyStyle("bold", "OUTPUT"), ...output];
    process.stdout.write(
      `\u001b[H${lines
        .slice(0, rows - 1)
        .map((text) => `${escapeLine(text)}\u001b[K\n`)
        .join("")}\u001b[J`,
    );
  }
}
