/** The page's stream in a browser: the server's `/panel/stream`, with the page's session. */
import { createParser } from "eventsource-parser";
import type { Source, Update } from "./host.ts";
import { SignedOut, ToolFailed, Unreachable } from "./tools.ts";
import { BUSY, UNREACHABLE, statusText } from "./texts.ts";

/** The longest silence of a working stream, in milliseconds: the server sends a comment every 5 seconds. */
const SILENCE_MS = 20_000;

/** Identifies this page's streams to the server, so that a new one replaces the old one. */
const page = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16)).join("-");

export const streamedSource: Source = async (watch, report, signal) => {
  const lost = new AbortController();
  const disconnect = () => lost.abort();
  let silence = setTimeout(disconnect, SILENCE_MS);
  const restartTimer = () => {
    clearTimeout(silence);
    silence = setTimeout(disconnect, SILENCE_MS);
  };
  addEventListener("offline", disconnect);
  let end: string | undefined;
  const reports: Promise<void>[] = [];
  const parser = createParser({
    onEvent({ event, data }) {
      if (event === "end") end = (JSON.parse(data) as { reason: string }).reason;
      else {
        const { watch: index, refused, ...update } = JSON.parse(data) as StreamEvent;
        reports.push(report(index, refused === undefined ? update : { problem: refused }));
      }
    },
  });
  try {
    const eitherSignal = AbortSignal.any([signal, lost.signal]);
    const response = await fetch("/panel/stream", {
      method: "POST",
      headers: { "content-type": "application/json", accept: "text/event-stream" },
      body: JSON.stringify({ page, watch }),
      credentials: "same-origin",
      signal: eitherSignal,
    });
    if (response.status === 401) throw new SignedOut();
    if (response.status === 429 || response.status === 503) throw new Unreachable(BUSY);
    if (!response.ok) throw new ToolFailed(statusText(response.status));
    const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = (await reader?.read()) ?? { done: true };
      if (done) break;
      restartTimer();
      parser.feed(value ?? "");
      await Promise.all(reports.splice(0));
      restartTimer();
    }
  } catch (error) {
    if (signal.aborted) return;
    if (error instanceof SignedOut || error instanceof ToolFailed || error instanceof Unreachable)
      throw error;
  } finally {
    clearTimeout(silence);
    removeEventListener("offline", disconnect);
  }
  if (signal.aborted || end === "again") return;
  if (end === "signed_out") throw new SignedOut();
  if (end === "busy") throw new Unreachable(BUSY);
  throw new Unreachable(UNREACHABLE);
};

interface StreamEvent extends Update {
  watch: number;
  /** The reason, if the server refuses to make this call. */
  refused?: string;
}
