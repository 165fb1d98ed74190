/** How fast the actor reads the lines of agents, measured with a fake clock. */
import { beforeEach, expect, it, vi } from "vitest";
import { AGENTS } from "../../../src/tasks/agents.ts";
import { TaskOutput } from "../../../src/tasks/task-output.ts";
import { Recorder } from "./recorder.ts";

beforeEach(() => void vi.useFakeTimers({ toFake: ["performance", "setTimeout", "clearTimeout", "Date"] }));

const SECONDS = 10;

/** Starts a task whose agent prints the line again and again. @returns how many lines were read */
function startAgent(principal: string, line: string): () => number {
  const reader = AGENTS["claude-code"].reader("/workspace", "conversation");
  const output = new TaskOutput(
    new Recorder(),
    reader,
    { offset: 0, step: "agent" },
    () => undefined,
    () => undefined,
    () => 0,
    () => principal,
  );
  const piece = new TextEncoder().encode(line.repeat(output.maxOutputBytes / line.length));
  let lines = 0;
  void (async () => {
    // Without a limit, this would never end.
    while (lines < 10_000_000) {
      await output.take(piece.length, () => output.output("stdout", piece));
      lines += piece.length / line.length;
    }
  })();
  return () => lines;
}

it.each([
  { what: "empty lines", line: "\n", atMost: 52_000 },
  { what: "lines that are not events", line: "x\n", atMost: 10_500 },
  { what: "short events", line: '{"type":"abc"}\n'.padStart(16), atMost: 42_000 },
])("all tasks of a principal together read $what at a limited rate", async ({ line, atMost }) => {
  const agents = Array.from({ length: 10 }, () => startAgent(`many ${line}`, line));
  const other = startAgent(`other ${line}`, line);
  await vi.advanceTimersByTimeAsync(SECONDS * 1000);
  const read = agents.reduce((sum, lines) => sum + lines(), 0) / SECONDS;
  expect(read).toBeLessThan(atMost);
  expect(read).toBeGreaterThan(atMost / 2);
  // The other principal has a limit of its own.
  expect(other() / SECONDS).toBeGreaterThan(atMost / 2);
});
