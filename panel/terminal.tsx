/** The terminal of a command that runs in one: what it prints as it comes, and what is typed. */
import { useEffect, useRef, useState } from "preact/hooks";
import { Resizing, type Size } from "../src/shared/terminal/size.ts";
import { spaced, Typing } from "../src/shared/terminal/typing.ts";
import type { RunState } from "./follow.ts";
import { host } from "./host.ts";
import { useOffered } from "./offered.ts";
import { pause, shown, wordsOf } from "./poll.ts";
import type { Screen } from "./terminal-screen.ts";
import { callTool, SignedOut, ToolFailed } from "./tools.ts";

/** Of what was printed before, this much is shown to who returns to a terminal, bytes. */
const SHOWN_AGAIN = 256 * 1024;

/** How far reading may be behind, bytes: beyond that it goes on near the end. */
const MAX_BEHIND = 1024 * 1024;

/** How long the server waits for more output, seconds. */
const WAIT_SECONDS = 20;

const RETRY_MS = 2000;

/** While the element changes, its size is not passed on for so long, milliseconds. */
const SETTLE_MS = 300;

export interface TerminalState {
  state: RunState;
  exitCode: number | undefined;
  bytes: number;
}

interface Page {
  state: RunState;
  exit_code?: number;
  log: { text: string }[];
  next_cursor: number;
  log_bytes: number;
}

/** Sizes that terminals were given by this page, by the run. */
const given = new Map<string, Size>();

/** Runs that this page has started and not shown yet. */
const fresh = new Set<string>();

let last: Size | undefined;

/** The size that a terminal most likely has on this page. */
export function likelySize(): Size {
  const width = document.querySelector("main")?.clientWidth ?? 800;
  const guess = { rows: Math.floor((innerHeight * 0.6) / 20), columns: Math.floor((width - 110) / 7.85) };
  return last ?? { rows: Math.max(8, guess.rows), columns: Math.max(20, guess.columns) };
}

/** Tells that this page has started a run, with a terminal of this size. */
export function startedWith(id: string, size: Size): void {
  given.set(id, size);
  fresh.add(id);
}

/** Whether this page has started the run, and has not shown it yet. */
export function isFresh(id: string): boolean {
  return fresh.has(id);
}

interface Shown {
  id: string;
  /** Called as it goes on. */
  onState: (state: TerminalState) => void;
  /** Called when there can be no terminal. */
  onImpossible: () => void;
  onSignedOut: () => void;
}

export function Terminal({ id, onState, onImpossible, onSignedOut }: Shown) {
  const isOffered = useOffered();
  const mayType = isOffered("send_input");
  const mayResize = isOffered("run_command");
  const element = useRef<HTMLDivElement>(null);
  const below = useRef<HTMLInputElement>(null);
  const screen = useRef<Screen | undefined>(undefined);
  const [problem, setProblem] = useState<string>();
  const [isRead, setRead] = useState(false);

  useEffect(() => {
    const stop = new AbortController();
    const { signal } = stop;
    const failed = (error: unknown) => {
      if (signal.aborted) return;
      if (error instanceof SignedOut) onSignedOut();
      else setProblem(wordsOf(error));
    };
    const ask = (name: string, args: Record<string, unknown>) =>
      callTool<Page>(name, args, signal, "raw").then(({ data }) => data);
    let typing = newTyping();
    function newTyping(): Typing {
      return new Typing(
        async (text) => {
          await ask("send_input", { id, text });
          setProblem(undefined);
        },
        (error) => {
          failed(error);
          typing = newTyping();
        },
      );
    }
    /** Whether the program is to draw its screen anew: what it drew before is not shown whole. */
    let isRedrawn = false;
    const sizeNow = () => {
      const size = screen.current?.size ?? likelySize();
      if (!isRedrawn) return size;
      isRedrawn = false;
      // It draws again when the size changes, so that is changed twice.
      queueMicrotask(() => resizing.start());
      return { ...size, rows: size.rows - 1 };
    };
    const resizing = new Resizing(id, sizeNow, (args) => callTool("run_command", args, signal));
    let settling: ReturnType<typeof setTimeout>;
    const resize = (size: Size) => {
      last = size;
      clearTimeout(settling);
      settling = setTimeout(() => {
        const before = given.get(id);
        if (!mayResize || signal.aborted) return;
        if (before?.rows === size.rows && before.columns === size.columns) return;
        given.set(id, size);
        resizing.start();
      }, SETTLE_MS);
    };

    const redraw = () => {
      isRedrawn = true;
      if (mayResize) resizing.start();
    };

    void (async () => {
      const { Screen } = await import("./terminal-screen.ts");
      if (signal.aborted || !element.current) return;
      const opened = new Screen(element.current, {
        isReadOnly: !mayType,
        onTyped: (text) => mayType && typing.type(text),
        onSize: resize,
        onLeave: () => below.current?.focus(),
        onRefused: setProblem,
        confirm: (question) => host().confirm(question),
      });
      screen.current = opened;
      element.current.scrollIntoView({ block: "nearest" });
      if (mayType) opened.focus();
      await follow(opened);
      opened.end();
    })().catch((error: unknown) => {
      if (!signal.aborted) onImpossible();
      console.error(error);
    });

    /** Shows what the run prints until it ends. */
    async function follow(opened: Screen): Promise<void> {
      let cursor: number | undefined;
      /** What was printed before there was this screen. */
      let past = 0;
      /** Whether what comes next begins in the middle. */
      let isCut = false;
      const isOld = !fresh.delete(id);
      while (!signal.aborted) {
        await shown(signal);
        try {
          if (cursor === undefined) {
            if (isOld) past = (await ask("get_result", { id, cursor: 0, wait_seconds: 0 })).log_bytes;
            cursor = Math.max(0, past - SHOWN_AGAIN);
            isCut = cursor > 0;
          }
          const args = { id, cursor, wait_seconds: cursor < past ? 0 : WAIT_SECONDS };
          const page = await spaced(() => ask("get_result", args));
          if (signal.aborted) return;
          const { state, exit_code: exitCode, next_cursor: next, log_bytes: bytes } = page;
          for (const { text } of page.log) {
            await opened.write(isCut ? wholeFrom(text) : text, next <= past);
            isCut = false;
          }
          if (isOld && cursor < past && next >= past && past > SHOWN_AGAIN) redraw();
          cursor = next;
          if (bytes - next > MAX_BEHIND) {
            cursor = bytes - SHOWN_AGAIN;
            opened.clear();
            await opened.write(`[${cursor - next} bytes are not shown: this page was behind.]\r\n`, true);
            isCut = true;
          }
          onState({ state, exitCode, bytes });
          setProblem(undefined);
          if (state !== "running" && cursor >= bytes) return;
        } catch (error) {
          failed(error);
          if (signal.aborted || error instanceof SignedOut || error instanceof ToolFailed) return;
          await pause(RETRY_MS, signal);
        }
      }
    }

    return () => {
      stop.abort();
      clearTimeout(settling);
      screen.current?.close();
      screen.current = undefined;
    };
  }, [id]);

  useEffect(() => {
    if (screen.current) screen.current.isRead = isRead;
  }, [isRead]);

  return (
    <>
      <div class="terminal-box" ref={element} role="region" aria-label="Terminal" />
      <div class="together">
        <label class="check">
          <input
            type="checkbox"
            ref={below}
            checked={isRead}
            onChange={({ currentTarget }) => setRead(currentTarget.checked)}
          />{" "}
          for a screen reader
        </label>
        <p class="soft">Ctrl+] leaves the terminal. Ctrl+C copies what is selected, Ctrl+Shift+V pastes.</p>
      </div>
      <div role="alert">{problem && <p class="note">{problem}</p>}</div>
    </>
  );
}

/** What begins in the middle, from the first line or sequence that is whole. */
function wholeFrom(text: string): string {
  // oxlint-disable-next-line no-control-regex
  return text.slice(Math.max(0, text.search(/[\n\x1b]/)));
}
