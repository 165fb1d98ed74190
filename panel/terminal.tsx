/** A command's terminal: its output, and typing. */
import { useEffect, useRef, useState } from "preact/hooks";
import { Resizing, type Size } from "../src/shared/terminal/size.ts";
import { Typing } from "../src/shared/terminal/typing.ts";
import type { RunState } from "../src/shared/run-listing.ts";
import { followLog, isReadWhole, type LogPage } from "./follow-log.ts";
import { host } from "./host.ts";
import { useOffered } from "./offered.ts";
import type { Screen } from "./terminal-screen.ts";
import { callTool, showError } from "./tools.ts";
import { TERMINAL_KEYS, notShown } from "./texts.ts";

/** How long the terminal element's size must be stable before the page sends it to the program. */
const SETTLE_MS = 300;

export interface TerminalState {
  state: RunState;
  exitCode: number | undefined;
  bytes: number;
}

/** The terminal sizes that this page has sent, by run. */
const sentSizes = new Map<string, Size>();

/** Runs that this page has started but not shown yet. */
const fresh = new Set<string>();

let lastSize: Size | undefined;

/**
 * The size of the next terminal: the size of the last one, or an estimate. A terminal takes 60 % of the window's height. A character
 * is about 7.85 pixels wide and 20 high, and 110 pixels of the width are margins.
 */
export function likelySize(): Size {
  const width = document.querySelector("main")?.clientWidth ?? 800;
  const guess = { rows: Math.floor((innerHeight * 0.6) / 20), columns: Math.floor((width - 110) / 7.85) };
  return lastSize ?? { rows: Math.max(8, guess.rows), columns: Math.max(20, guess.columns) };
}

export function noteStartSize(id: string, size: Size): void {
  sentSizes.set(id, size);
  fresh.add(id);
}

export function isFresh(id: string): boolean {
  return fresh.has(id);
}

interface TerminalProps {
  id: string;
  onState: (state: TerminalState) => void;
  onImpossible: () => void;
}

export function Terminal({ id, onState, onImpossible }: TerminalProps) {
  const isOffered = useOffered();
  const mayType = isOffered("send_input");
  const element = useRef<HTMLDivElement>(null);
  const below = useRef<HTMLInputElement>(null);
  const screen = useRef<Screen | undefined>(undefined);
  const [problem, setProblem] = useState<string>();
  const [isReadAloud, setReadAloud] = useState(false);

  useEffect(() => {
    const stop = new AbortController();
    const { signal } = stop;
    const reportFailure = (error: unknown) => {
      if (!signal.aborted) showError(error, setProblem);
    };
    let typing = newTyping();
    function newTyping(): Typing {
      return new Typing(
        async (text) => {
          await callTool("send_input", { id, text }, signal, "raw");
          setProblem(undefined);
        },
        (error) => {
          reportFailure(error);
          typing = newTyping();
        },
      );
    }
    /** Whether the program must redraw its screen, because earlier output is incomplete. */
    let needsRedraw = false;
    const sizeNow = () => {
      const size = screen.current?.size ?? likelySize();
      if (!needsRedraw) return size;
      needsRedraw = false;
      // A program redraws its screen after a size change, so the size is changed and changed back.
      queueMicrotask(() => resizing.start());
      return { ...size, rows: size.rows - 1 };
    };
    const resizing = new Resizing(sizeNow, (now) => callTool("send_input", { id, ...now }, signal, "raw"));
    let settling: ReturnType<typeof setTimeout>;
    const resize = (size: Size) => {
      lastSize = size;
      clearTimeout(settling);
      settling = setTimeout(() => {
        const before = sentSizes.get(id);
        if (!mayType || signal.aborted) return;
        if (before?.rows === size.rows && before.columns === size.columns) return;
        sentSizes.set(id, size);
        resizing.start();
      }, SETTLE_MS);
    };

    const redraw = () => {
      needsRedraw = true;
      if (mayType) resizing.start();
    };

    let stopFollowing: (() => void) | undefined;
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
      stopFollowing = follow(opened);
    })().catch((error: unknown) => {
      if (!signal.aborted) onImpossible();
      console.error(error);
    });

    /** Shows a run's output until its end. Returns a function that stops it. */
    function follow(opened: Screen): () => void {
      /** How many bytes the program printed before this screen opened; undefined until the first page of output. */
      let past = fresh.delete(id) ? 0 : undefined;
      /** Whether the next output may begin in the middle of a line. */
      let isCut = false;
      /** Whether earlier output is incomplete. */
      let isPastCut = false;
      const draw = async (page: LogPage, leftOut: number) => {
        const { state, exit_code: exitCode, next_cursor: next, log_bytes: bytes } = page;
        past ??= bytes;
        for (const { text } of page.log) {
          if (signal.aborted) return;
          await opened.write(isCut ? skipPartialSequence(text) : text, next <= past);
          isCut = false;
        }
        if (signal.aborted) return;
        if (isPastCut && next >= past) {
          isPastCut = false;
          redraw();
        }
        if (leftOut > 0) {
          opened.clear();
          await opened.write(`${notShown(leftOut)}\r\n`, true);
          isCut = true;
          isPastCut ||= next < past;
        }
        onState({ state, exitCode, bytes });
        setProblem(undefined);
        if (isReadWhole(page)) opened.end();
      };
      return followLog(id, { form: "raw", onPage: draw, onProblem: setProblem });
    }

    return () => {
      stop.abort();
      stopFollowing?.();
      clearTimeout(settling);
      screen.current?.close();
      screen.current = undefined;
    };
  }, [id]);

  useEffect(() => {
    if (screen.current) screen.current.isReadAloud = isReadAloud;
  }, [isReadAloud]);

  return (
    <>
      <div class="terminal-box" ref={element} role="region" aria-label="Terminal" />
      <div class="together">
        <label class="check">
          <input
            type="checkbox"
            ref={below}
            checked={isReadAloud}
            onChange={({ currentTarget }) => setReadAloud(currentTarget.checked)}
          />{" "}
          Make output readable for a screen reader
        </label>
        <p class="soft">{TERMINAL_KEYS}</p>
      </div>
      <div role="alert">{problem && <p class="note">{problem}</p>}</div>
    </>
  );
}

/** Drops the beginning of output that starts within a line or an escape sequence, up to the next line or sequence. */
function skipPartialSequence(text: string): string {
  // oxlint-disable-next-line no-control-regex
  return text.slice(Math.max(0, text.search(/[\n\x1b]/)));
}
