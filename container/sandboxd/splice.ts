import type { Duplex } from "node:stream";

/**
 * Connects two streams until both have ended. Either may end first: the data that it sent still reaches the other stream. An
 * error of one stream closes the other.
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
