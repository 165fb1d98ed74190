import { duration } from "./format.ts";
import type { ListedRun } from "../src/shared/run-listing.ts";
import { plain } from "./plain.ts";
import { hrefOf } from "./route.ts";
import { Time } from "./time.tsx";

const STATES: Record<ListedRun["state"], string> = {
  running: "running",
  succeeded: "succeeded",
  failed: "failed",
  cancelled: "cancelled",
  timed_out: "timed out",
  lost: "lost",
};

interface RunLinkProps {
  run: ListedRun;
  sandbox: string;
  isOpen?: boolean;
  isSandboxShown?: boolean;
}

export function RunLink({ run, sandbox, isOpen = false, isSandboxShown = false }: RunLinkProps) {
  return (
    <a href={hrefOf(sandbox, "runs", run.id)} aria-current={isOpen ? "true" : undefined}>
      <State state={run.state} />
      <bdi class="title">{plain(run.title)}</bdi>
      <span class="soft">
        {isSandboxShown && `${sandbox}, `}
        {run.kind}, <Time iso={run.started_at} />, {duration(run.duration_ms)}
      </span>
    </a>
  );
}

export function State({ state }: { state: ListedRun["state"] }) {
  return <span class={`state ${state}`}>{STATES[state]}</span>;
}
