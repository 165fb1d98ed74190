/** Shows a log. Only visible rows are elements, however long the log is. */
import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { useFollowEnd } from "./follow-end.ts";
import type { Line, OutputLog, Span } from "./output-log.ts";

/** A row's height in pixels, as in the style sheet. */
const ROW_HEIGHT = 20;

const MARGIN_ROWS = 10;

interface Size {
  columns: number;
  height: number;
}

/** @param version a number that changes when the log changes */
export function LogView({ log, version, label }: { log: OutputLog; version: number; label: string }) {
  const box = useRef<HTMLDivElement>(null);
  const probe = useRef<HTMLSpanElement>(null);
  const [size, setSize] = useState<Size>({ columns: 80, height: 400 });
  const [top, setTop] = useState(0);

  useLayoutEffect(() => {
    const [element, character] = [box.current, probe.current];
    if (!element || !character) return;
    const measure = () => {
      const width = character.getBoundingClientRect().width / 10 || 8;
      const columns = Math.max(20, Math.floor((element.clientWidth - 24) / width));
      setSize({ columns, height: element.clientHeight });
    };
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    measure();
    return () => observer.disconnect();
  }, []);

  const lines = useMemo(() => log.lines(), [log, version]);
  /** The first row of each line, and the row after the last. */
  const starts = useMemo(() => {
    const numbers = [0];
    for (const line of lines)
      numbers.push((numbers.at(-1) ?? 0) + Math.max(1, Math.ceil(line.length / size.columns)));
    return numbers;
  }, [lines, size.columns]);
  const rows = starts.at(-1) ?? 0;

  const onScrolled = useFollowEnd(box, [rows, size]);
  const onScroll = () => {
    onScrolled();
    setTop(box.current?.scrollTop ?? 0);
  };

  const first = Math.max(0, Math.min(rows, Math.floor(top / ROW_HEIGHT)) - MARGIN_ROWS);
  const last = Math.min(rows, Math.ceil((top + size.height) / ROW_HEIGHT) + MARGIN_ROWS);
  const shown = [];
  for (let row = first, line = lineAt(starts, first); row < last; row++) {
    while ((starts[line + 1] ?? Infinity) <= row) line++;
    const from = (row - (starts[line] ?? 0)) * size.columns;
    shown.push(
      <div class="row" key={row} style={{ top: `${row * ROW_HEIGHT}px` }}>
        {part(lines[line], from, from + size.columns).map(({ text, style }, index) => (
          <span key={index} class={style} style={colorsOf(style)}>
            {text}
          </span>
        ))}
      </div>,
    );
  }
  return (
    <div class="log" ref={box} onScroll={onScroll} role="region" aria-label={label} tabIndex={0}>
      <span class="probe" ref={probe} aria-hidden="true">
        0000000000
      </span>
      <div class="rows" style={{ height: `${rows * ROW_HEIGHT}px` }}>
        {shown}
      </div>
    </div>
  );
}

const COLORS = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];

/** Colors of class names such as f1 and b12. On a colored background, text has the color of the page, which is readable there. */
function colorsOf(style: string) {
  if (style.includes("inverse")) return undefined;
  const named = (kind: RegExp) => COLORS[Number(kind.exec(style)?.[1] ?? NaN) % COLORS.length];
  const [color, background] = [named(/\bf(\d+)/), named(/\bb(\d+)/)];
  if (background) return { background: `var(--${background})`, color: "var(--back)" };
  return color ? { color: `var(--${color})` } : undefined;
}

function lineAt(starts: readonly number[], row: number): number {
  let [low, high] = [0, Math.max(0, starts.length - 2)];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if ((starts[middle] ?? 0) <= row) low = middle;
    else high = middle - 1;
  }
  return low;
}

function part(line: Line | undefined, from: number, to: number): Span[] {
  if (!line || line.length <= to - from) return [...(line?.spans ?? [])];
  const found: Span[] = [];
  let at = 0;
  for (const { text, style } of line.spans) {
    const characters = Array.from(text);
    const cut = characters.slice(Math.max(0, from - at), Math.max(0, to - at));
    if (cut.length > 0) found.push({ text: cut.join(""), style });
    at += characters.length;
    if (at >= to) break;
  }
  return found;
}
