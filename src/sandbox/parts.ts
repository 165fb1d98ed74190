/** What the actor of a sandbox is made of, and how its parts reach each other. */
import type { Sandbox as BaseSandbox } from "@cloudflare/sandbox";
import { Connection } from "../container/connection.ts";
import { Commands } from "../runs/command.ts";
import { Runs } from "../runs/runs.ts";
import type { RunRecord } from "../runs/store.ts";
import { TaskBudgets } from "../runs/task-budget.ts";
import { Tasks } from "../runs/task.ts";
import { type Env, parseConfig } from "../server/config.ts";
import { log } from "../server/log.ts";
import { Boots } from "./boots.ts";
import { Files } from "./files.ts";
import { Gate } from "./gate.ts";
import { Housekeeping } from "./housekeeping.ts";
import { Kernels } from "./kernels.ts";
import { Lease } from "./lease.ts";
import { Lifecycle } from "./lifecycle.ts";
import { Measuring } from "./measuring.ts";
import { Membership } from "./membership.ts";
import { Shell } from "./shell.ts";
import { Storage } from "./storage.ts";
import { Stakes } from "./stakes.ts";

/** What only the actor as a whole can see to. */
export interface PartsHost {
  /** A container is gone, and everything in it. */
  containerGone(): void;
  /** A run has ended: its files in the sandbox are of no more use, and its record will expire. */
  runEnded(run: RunRecord, hasFiles: boolean): void;
}

export type Parts = ReturnType<typeof assemble>;

const DAY_MS = 86_400_000;

/** Where it is remembered until when the account knows what runs have used, in the actor's storage. */
const TOLD = "told";

/** @param actor what of it is the SDK's own */
export function assemble(actor: BaseSandbox<Env>, ctx: DurableObjectState<{}>, env: Env, host: PartsHost) {
  const running = () => ctx.container?.running === true;
  const background = (work: Promise<unknown>) => ctx.waitUntil(work);
  const config = parseConfig(env);
  const logCapBytes = config.runLogMaxMiB * 1024 * 1024;
  const boots = new Boots(ctx.storage.kv);
  const lifecycle = new Lifecycle(
    {
      running,
      stop: () => actor.stop(),
      started: () => membership.note("start"),
      gone: () => host.containerGone(),
    },
    boots,
  );
  const shell = new Shell(actor, () => lifecycle.outlived());
  const membership = new Membership(ctx, env, shell);
  const connection = new Connection({
    running,
    // Any call of the SDK's: it starts what is not there, and says in its own words why it cannot.
    start: async () => void (await actor.client.utils.ping()),
    fetch: (port, request) => container(ctx).getTcpPort(port).fetch(request),
    used: () => actor.renewActivityTimeout(),
  });
  const commands = new Commands({ connection, running });
  const files = new Files(shell, actor);
  const kernels = new Kernels(actor, ctx.storage.sql);
  const runs = new Runs({
    sql: ctx.storage.sql,
    bucket: env.RESULTS,
    owner: () => membership.owner,
    logCapBytes,
    keepMs: config.resultTTLDays * DAY_MS,
    background,
    failed: (id, error) => log(config, { event: "error", ref: id, where: "run", error }),
    ended: (run, hasFiles) => host.runEnded(run, hasFiles),
  });
  const housekeeping = new Housekeeping({
    kv: ctx.storage.kv,
    connection,
    running,
    keepMs: config.resultTTLDays * DAY_MS,
    background,
    schedule: (at) => actor.schedule(at, "sweepRuns"),
    sweep: () => runs.sweep(),
  });
  const measuring = new Measuring({
    running,
    measure: () => membership.measure(),
    background,
  });
  const { kv } = ctx.storage;
  const lease = new Lease(
    {
      ask: (request) => {
        const { owner } = membership;
        return membership.account(owner).lease(owner, request);
      },
      background,
      told: () => kv.put(TOLD, Date.now()),
    },
    runs.secondsSince(kv.get<number>(TOLD)),
  );
  const storage = new Storage({
    stored: () => runs.stored(),
    isBusy: () => runs.isBusy,
    tell: (stored) => membership.account(membership.owner).sandboxStored(membership.owner, stored),
    full: (isFull) => (runs.isFull = isFull),
    background,
  });
  const budgets = new TaskBudgets(ctx.storage.sql);
  const tasks = new Tasks({
    shell,
    commands,
    budgets,
    bucket: env.RESULTS,
    prefix: (runID) => membership.prefix(runID),
    writeFile: (...file) => actor.writeFile(...file),
    boot: () => boots.count,
    maxTokens: config.tasks.maxTokens,
    archiveMaxBytes: config.tasks.archiveMaxMiB * 1024 * 1024,
    report: (error) =>
      log(config, { event: "error", ref: crypto.randomUUID(), where: "execute_task", error }),
  });
  return {
    logCapBytes,
    boots,
    gate: new Gate(running),
    lifecycle,
    shell,
    membership,
    commands,
    files,
    kernels,
    runs,
    housekeeping,
    measuring,
    storage,
    lease,
    stakes: new Stakes(lease, lifecycle, config.limits),
    budgets,
    tasks,
  };
}

function container({ container: there }: DurableObjectState<{}>): Container {
  if (there) return there;
  throw new Error("this actor has no container");
}
