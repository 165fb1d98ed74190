import type { ComponentChildren } from "preact";
import { duration } from "./format.ts";
import type { EachField, ListedRun } from "../src/shared/run-listing.ts";
import { escapeOrdering } from "./escape-ordering.ts";
import { hrefOf } from "./route.ts";
import { Time } from "./time.tsx";

interface RunLinkProps {
  run: ListedRun;
  sandbox: string;
  isOpen?: boolean;
  isSandboxShown?: boolean;
}

export function RunLink({ run, sandbox, isOpen = false, isSandboxShown = false }: RunLinkProps) {
  const { state, title, ...others }: EachField<ComponentChildren> = {
    id: undefined,
    state: <State state={run.state} />,
    exit_code: undefined,
    title: <bdi class="title">{escapeOrdering(run.title)}</bdi>,
    kind: run.kind,
    started_at: <Time iso={run.started_at} />,
    duration_ms: duration(run.duration_ms),
  };
  const details = [isSandboxShown && sandbox, ...Object.values(others)].filter(Boolean);
  return (
    <a href={hrefOf(sandbox, "runs", run.id)} aria-current={isOpen ? "true" : undefined}>
      {state}
      {title}
      <span class="soft">{details.flatMap((detail, index) => (index > 0 ? [", ", detail] : [detail]))}</span>
    </a>
  );
}

export function State({ state }: { state: ListedRun["state"] }) {
  return <span class={`state ${state}`}>{state.replace("_", " ")}</span>;
}
