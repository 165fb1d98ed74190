/** A list that renders only its visible rows if it is long. */
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";

const MAX_UNWINDOWED_ROWS = 30;

/** How many rows before and after the visible rows are rendered, so that the Tab key reaches them. */
const MARGIN_ROWS = 5;

interface Rows<T> {
  items: readonly T[];
  keyOf: (item: T) => string;
  /** One element. All rows have the same height: the style sheet cuts longer text. */
  row: (item: T) => ComponentChildren;
  /** The key of the row to scroll to at first, if the list has a scroll bar of its own. */
  current?: string;
  class?: string;
  labelledBy?: string;
}

/** The height of a row in pixels, and the numbers of the first row that is rendered and of the row after the last one. */
interface VisibleRange {
  height: number;
  first: number;
  last: number;
}

export function WindowedList<T>({ items, keyOf, row, current, class: name = "", labelledBy }: Rows<T>) {
  const list = useRef<HTMLUListElement>(null);
  const [range, setRange] = useState<VisibleRange>({ height: 0, first: 0, last: MAX_UNWINDOWED_ROWS });
  /** The row with the focus. It stays rendered when it is not visible. */
  const [focused, setFocused] = useState<string>();
  const isLong = items.length > MAX_UNWINDOWED_ROWS;

  useLayoutEffect(() => {
    const element = list.current;
    if (!element || !isLong) return undefined;
    const updateRange = () => {
      const heights = Array.from(
        element.children,
        ({ firstElementChild: shown }) => shown?.scrollHeight ?? 0,
      );
      const height = Math.max(1, ...heights);
      const { top } = element.getBoundingClientRect();
      const first = Math.max(0, Math.floor(-top / height) - MARGIN_ROWS);
      const last = Math.max(first, Math.ceil((innerHeight - top) / height) + MARGIN_ROWS);
      setRange((before) =>
        before.height === height && before.first === first && before.last === last
          ? before
          : { height, first, last },
      );
    };
    updateRange();
    // The list moves when an element around it scrolls or grows.
    const observer = new ResizeObserver(updateRange);
    observer.observe(document.body);
    document.addEventListener("scroll", updateRange, { capture: true, passive: true });
    addEventListener("resize", updateRange);
    return () => {
      observer.disconnect();
      document.removeEventListener("scroll", updateRange, { capture: true });
      removeEventListener("resize", updateRange);
    };
  }, [isLong]);

  const { height } = range;
  useLayoutEffect(() => {
    const box = list.current?.parentElement;
    const index = items.findIndex((item) => keyOf(item) === current);
    if (isLong && box && height > 0 && index >= 0)
      box.scrollTop = index * height - (box.clientHeight - height) / 2;
    // Scrolls only once, because later the user may have scrolled.
  }, [isLong, height > 0]);

  if (!isLong)
    return (
      <ul class={name} aria-labelledby={labelledBy}>
        {items.map((item) => (
          <li key={keyOf(item)}>{row(item)}</li>
        ))}
      </ul>
    );
  const { first, last } = range;
  const shown = items
    .map((item, index) => ({ item, index, key: keyOf(item) }))
    .filter(({ index, key }) => (index >= first && index < last) || key === focused);
  return (
    <ul
      class={`${name} windowed`}
      aria-labelledby={labelledBy}
      ref={list}
      style={{ height: `${items.length * height}px` }}
      onFocusOut={() => setFocused(undefined)}
    >
      {shown.map(({ item, index, key }) => (
        <li
          key={key}
          aria-setsize={items.length}
          aria-posinset={index + 1}
          style={{ top: `${index * height}px`, height: height ? `${height}px` : undefined }}
          onFocusIn={() => setFocused(key)}
        >
          {row(item)}
        </li>
      ))}
    </ul>
  );
}
