/** Measures our server and a baseline in turns, so that a disturbance of the machine affects both. */
import { setTimeout as pause } from "node:timers/promises";

export interface Row {
  name: string;
  unit: string;
  ours: number;
  baseline: number;
  /** ours / baseline */
  ratio: number;
  /** The lowest and the highest ratio of the measurement's parts, if it has parts. */
  spread?: [low: number, high: number];
}

/** Times of our server and of the baseline, in milliseconds. Times with the same index are a pair. */
export interface Pairs {
  ours: number[];
  baseline: number[];
}

type Call = (index: number) => Promise<unknown>;

/** The number of parts of a measurement. The range of their ratios shows how steady it is. */
const PARTS = 5;

/**
 * Times calls of both sides in turns. In every second pair, the baseline is first.
 * @param after called after each call; its time does not count
 */
export async function interleave(
  ours: Call,
  baseline: Call,
  {
    pairs,
    warmup,
    pauseMs = 0,
    after,
  }: { pairs: number; warmup: number; pauseMs?: number; after?: () => Promise<void> },
): Promise<Pairs> {
  const times: Pairs = { ours: [], baseline: [] };
  const sides = [
    { call: ours, into: times.ours },
    { call: baseline, into: times.baseline },
  ];
  for (let index = -warmup; index < pairs; index++) {
    sides.reverse();
    for (const { call, into } of sides) {
      if (pauseMs > 0) await pause(pauseMs);
      const start = performance.now();
      await call(index);
      if (index >= 0) into.push(performance.now() - start);
      await after?.();
    }
  }
  return times;
}

/** The row `<name> p50` of pairs and, if there are at least a hundred, the row `<name> p99`. */
export function latencyRows(name: string, pairs: Pairs): Row[] {
  return [
    latencyRow(`${name} p50`, pairs, 0.5),
    ...(pairs.ours.length >= 100 ? [latencyRow(`${name} p99`, pairs, 0.99)] : []),
  ];
}

function latencyRow(name: string, { ours, baseline }: Pairs, at: number): Row {
  const size = Math.floor(ours.length / PARTS);
  const ratios = Array.from({ length: size > 0 ? PARTS : 0 }, (_, part) => {
    const quantileOfPart = (times: number[]) => quantile(times.slice(part * size, (part + 1) * size), at);
    return quantileOfPart(ours) / quantileOfPart(baseline);
  });
  return {
    ...row(name, "ms", quantile(ours, at), quantile(baseline, at)),
    spread: ratios.length > 0 ? [round(Math.min(...ratios)), round(Math.max(...ratios))] : undefined,
  };
}

export function row(name: string, unit: string, ours: number, baseline: number): Row {
  return { name, unit, ours: round(ours), baseline: round(baseline), ratio: round(ours / baseline) };
}

/** The quantile `at` of the values; NaN when there are none. */
export function quantile(values: readonly number[], at: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * at))] ?? NaN;
}

function round(value: number): number {
  return Math.abs(value) >= 1000 ? Math.round(value) : Math.round(value * 1000) / 1000;
}
