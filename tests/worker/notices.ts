import type { RestartNotice } from "../../src/actors/restart-notice.ts";

/** The notice of a restart, as the next result's client gets and confirms it. */
export function takeNotice(notice: RestartNotice): string | undefined {
  const text = notice.current;
  if (text !== undefined) notice.confirm(text);
  return text;
}
