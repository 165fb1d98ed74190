import type { Duplex } from "node:stream";

/**
 * Connects two streams until both have ended. Each may end its half first. Data received before one's end still reaches the
 * other; an error of one closes the other.
 */
export function splice(left: Duplex, right: Duplex): void {
  left.pipe(right);
  right.pipe(left);
  for (const [one, other] of [
    [left, right],
    [right, left],
  ] as const) {
    one.on("error", () => other.destroy());
    one.on("close", () => {
      if (!one.readableEnded || other.writableFinished) return other.destroy();
      other.once("finish", () => other.destroy());
      other.end();
    });
  }
}
