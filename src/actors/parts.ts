/** What the actor of a sandbox is made of, and how its parts reach each other. */
import type { Sandbox as BaseSandbox } from "@cloudflare/sandbox";
import { Commands } from "../runs/command.ts";
import { Runs } from "../runs/runs.ts";
import type { RunRecord } from "../runs/store.ts";
import { TaskBudgets } from "../tasks/budget.ts";
import { Tasks } from "../tasks/tasks.ts";
import { type Env, parseConfig } from "../shared/config.ts";
import { log } from "../shared/log.ts";
import { RestartNotice } from "./restart-notice.ts";
import { Files } from "../container/files.ts";
import { ContainerStarts } from "./container-starts.ts";
import { Retention } from "./retention.ts";
import { Kernels } from "../container/kernels/kernels.ts";
import { Previews } from "./previews.ts";
import { Lease } from "./lease.ts";
import { Lifecycle } from "./container-lifecycle.ts";
import { DiskUsage } from "./disk-usage.ts";
import { AccountLink } from "./account-link.ts";
import { Shell } from "../container/shell.ts";
import { Storage } from "./storage.ts";
import { Stakes } from "./stakes.ts";
import { DAY_MS } from "../shared/days.ts";

/** What only the actor as a whole can see to. */
export interface PartsHost {
  /** A container is gone, and everything in it. */
  containerGone(): void;
  /** A run has ended: its files in the sandbox are of no more use, and its record will expire. */
  runEnded(run: RunRecord, hasFiles: boolean): void;
}

export type Parts = ReturnType<typeof assemble>;

/** Where it is remembered until when the account knows what runs have used, in the actor's storage. */
const TOLD = "told";

/** @param actor what of it is the SDK's own */
export function assemble(actor: BaseSandbox<Env>, ctx: DurableObjectState<{}>, env: Env, host: PartsHost) {
  const running = () => ctx.container?.running === true;
  const background = (work: Promise<unknown>) => ctx.waitUntil(work);
  const config = parseConfig(env);
  const logCapBytes = config.runLogMaxMiB * 1024 * 1024;
  const restartNotice = new RestartNotice(ctx.storage.kv);
  const lifecycle = new Lifecycle(
    {
      running,
      stop: () => actor.stop(),
      started: () => accountLink.note("start"),
      gone: () => host.containerGone(),
    },
    restartNotice,
  );
  const shell = new Shell(actor, {
    kv: ctx.storage.kv,
    running,
    outlived: () => lifecycle.outlived(),
  });
  const accountLink = new AccountLink(ctx, env, shell);
  const commands = new Commands(shell);
  const files = new Files(shell, actor);
  const kernels = new Kernels(actor, ctx.storage.sql);
  const runs = new Runs({
    sql: ctx.storage.sql,
    bucket: env.RESULTS,
    owner: () => accountLink.owner,
    logCapBytes,
    keepMs: config.resultTTLDays * DAY_MS,
    background,
    failed: (id, error) => log(config, { event: "error", ref: id, where: "run", error }),
    ended: (run, hasFiles) => host.runEnded(run, hasFiles),
  });
  const retention = new Retention({
    kv: ctx.storage.kv,
    shell,
    running,
    keepMs: config.resultTTLDays * DAY_MS,
    background,
    schedule: (at) => actor.schedule(at, "sweepRuns"),
    sweep: () => runs.sweep(),
  });
  const diskUsage = new DiskUsage({
    running,
    measure: () => accountLink.measure(),
    background,
  });
  const { kv } = ctx.storage;
  const lease = new Lease(
    {
      ask: (request) => {
        const { owner } = accountLink;
        return accountLink.account(owner).lease(owner, request);
      },
      background,
      told: () => kv.put(TOLD, Date.now()),
    },
    runs.secondsSince(kv.get<number>(TOLD)),
  );
  const storage = new Storage({
    stored: () => runs.stored(),
    isBusy: () => runs.isBusy,
    tell: (stored) => accountLink.account(accountLink.owner).sandboxStored(accountLink.owner, stored),
    full: (isFull) => (runs.isFull = isFull),
    background,
  });
  const previews = new Previews({
    sql: ctx.storage.sql,
    running,
    boot: () => restartNotice.count,
    fetch: (request) => toPort(ctx, request),
    used: () => {
      background(accountLink.used());
      actor.renewActivityTimeout();
    },
  });
  const budgets = new TaskBudgets(ctx.storage.sql);
  const tasks = new Tasks({
    shell,
    commands,
    budgets,
    bucket: env.RESULTS,
    prefix: (runID) => accountLink.prefix(runID),
    writeFile: (...file) => actor.writeFile(...file),
    boot: () => restartNotice.count,
    maxTokens: config.tasks.maxTokens,
    archiveMaxBytes: config.tasks.archiveMaxMiB * 1024 * 1024,
    report: (error) =>
      log(config, { event: "error", ref: crypto.randomUUID(), where: "execute_task", error }),
  });
  return {
    logCapBytes,
    restartNotice,
    gate: new ContainerStarts(running),
    lifecycle,
    shell,
    accountLink,
    commands,
    files,
    kernels,
    runs,
    retention,
    diskUsage,
    storage,
    lease,
    previews,
    stakes: new Stakes(lease, lifecycle, config.limits),
    budgets,
    tasks,
  };
}

/** Sends a request to the port of its URL. */
function toPort({ container }: DurableObjectState<{}>, request: Request): Promise<Response> {
  if (!container) throw new Error("this actor has no container");
  return container.getTcpPort(Number(new URL(request.url).port)).fetch(request);
}
