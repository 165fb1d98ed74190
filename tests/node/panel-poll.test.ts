/** How the panel repeats its calls. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { browserHost } from "../../panel/browser.ts";
import { followLog } from "../../panel/follow-log.ts";
import { type Host, setHost, type ToolResult } from "../../panel/host.ts";
import { poll } from "../../panel/poll.ts";
import { Unreachable } from "../../panel/tools.ts";
import { ERROR_META } from "../../src/shared/apps.ts";

const callTool = vi.fn<Host["callTool"]>();

beforeEach(() => {
  vi.useFakeTimers();
  const page = new EventTarget();
  vi.stubGlobal("document", new EventTarget());
  for (const name of ["addEventListener", "removeEventListener", "dispatchEvent"] as const)
    vi.stubGlobal(name, page[name].bind(page));
  callTool.mockReset();
  setHost({ callTool, isOutOfSight: () => false } as unknown as Host);
});
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

it("a poll leaves no listener at its signal after a step, because it may take thousands", async () => {
  const changes = [
    vi.spyOn(AbortSignal.prototype, "addEventListener"),
    vi.spyOn(AbortSignal.prototype, "removeEventListener"),
  ];
  let steps = 0;
  const end = poll(async () => (++steps < 20 ? 10 : undefined), vi.fn());
  await vi.advanceTimersByTimeAsync(1000);
  expect(steps).toBe(20);
  const [added, removed] = changes.map(({ mock }) => mock.calls.filter(([type]) => type === "abort").length);
  expect(added).toBeGreaterThanOrEqual(steps);
  expect(removed).toBe(added);
  end();
});

it.each([408, 502, 504])("a status of %i, for example of a proxy, counts as temporary", async (status) => {
  vi.stubGlobal("location", { hash: "", origin: "http://localhost" });
  vi.stubGlobal("fetch", async () => new Response("<h1>Bad gateway</h1>", { status }));
  await expect(browserHost().callTool("get_result", {}, "structured")).rejects.toThrow(Unreachable);
});

describe("a run's output", () => {
  const page = (state: string, text: string, from: number): ToolResult => {
    const end = from + text.length;
    return {
      structuredContent: { state, log: [{ stream: "stdout", text }], next_cursor: end, log_bytes: end },
    };
  };
  const failure = (code: string): ToolResult => ({
    isError: true,
    content: [],
    _meta: { [ERROR_META]: { code, message: `It failed: ${code}.` } },
  });
  /** Follows a run while the server answers with these results. */
  const follow = async (...results: ToolResult[]) => {
    for (const result of results) callTool.mockResolvedValueOnce(result);
    const shown: string[] = [];
    const stop = followLog("run", {
      form: "structured",
      onPage: ({ log }) => void shown.push(...log.map(({ text }) => text)),
      onProblem: (problem) => void shown.push(problem),
    });
    await vi.advanceTimersByTimeAsync(10_000);
    stop();
    return shown;
  };

  it("continues after an error that is temporary, for example because too many calls wait", async () => {
    const results = [page("running", "one", 0), failure("quota_exceeded"), page("succeeded", "two", 3)];
    expect(await follow(...results)).toEqual(["one", "It failed: quota_exceeded.", "two"]);
  });

  it("ends with an error that another call would get too", async () => {
    expect(await follow(failure("not_found"), page("succeeded", "one", 0))).toEqual([
      "It failed: not_found.",
    ]);
  });
});
