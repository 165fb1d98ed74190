import type { RefObject } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";

/** In pixels: at most a row. */
const TOLERANCE = 20;

const isAtEnd = ({ scrollHeight, scrollTop, clientHeight }: HTMLElement) =>
  scrollHeight - scrollTop - clientHeight < TOLERANCE;

/**
 * Keeps the end of an element visible after these changes, until its user scrolls up.
 * @returns to be called when the element was scrolled
 */
export function useFollowEnd(
  element: RefObject<HTMLElement | null>,
  changes: readonly unknown[],
): () => void {
  /** The element's position when its end was last visible. */
  const endTop = useRef(0);
  useLayoutEffect(() => {
    const box = element.current;
    // The position shows that the user has scrolled, even before the event comes. If the element shrinks, its end is visible
    // again.
    if (!box || (box.scrollTop < endTop.current && !isAtEnd(box))) return;
    box.scrollTop = box.scrollHeight;
    endTop.current = box.scrollTop;
  }, changes);
  return () => {
    const box = element.current;
    if (box && isAtEnd(box)) endTop.current = box.scrollTop;
  };
}
