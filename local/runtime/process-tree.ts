import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

interface ProcessEntry {
  pid: number;
  parent: number;
  group: number;
  session: number;
  /** Clock ticks since boot; tells a process from a later one with the same pid. */
  started: string;
}

/** How long a tree may take after SIGTERM, and again after SIGKILL: the container's own grace periods. */
const GRACE_MS = 5000;

/** Every live process one can see; zombies are left out. */
function processTable(): ProcessEntry[] {
  const table: ProcessEntry[] = [];
  for (const name of readdirSync("/proc")) {
    const pid = Number(name);
    if (!Number.isInteger(pid)) continue;
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
      // The command in parentheses may itself contain anything.
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      const [state, parent, group, session] = fields;
      if (state === "Z" || state === "X") continue;
      table.push({
        pid,
        parent: Number(parent),
        group: Number(group),
        session: Number(session),
        started: fields[19] ?? "",
      });
    } catch {
      // It ended while we looked.
    }
  }
  return table;
}

/** A process and all it started, also those that moved to another group, or lost their parent but not the group. */
class ProcessTree {
  readonly #known = new Map<number, string>();
  readonly #root: number;
  readonly #wholeGroup: boolean;

  constructor(root: number, wholeGroup: boolean) {
    this.#root = root;
    this.#wholeGroup = wholeGroup;
  }

  /** The members alive now, newly found ones included. */
  alive(): ProcessEntry[] {
    const table = processTable();
    const members = new Map<number, ProcessEntry>();
    const isMember = (entry: ProcessEntry): boolean =>
      this.#known.get(entry.pid) === entry.started ||
      members.has(entry.parent) ||
      (this.#wholeGroup &&
        (entry.pid === this.#root || entry.group === this.#root || entry.session === this.#root)) ||
      (!this.#wholeGroup && entry.parent === this.#root);
    for (let grown = true; grown;) {
      grown = false;
      for (const entry of table) {
        if (members.has(entry.pid) || entry.pid === process.pid || !isMember(entry)) continue;
        members.set(entry.pid, entry);
        this.#known.set(entry.pid, entry.started);
        grown = true;
      }
    }
    return [...members.values()];
  }
}

function signal(entries: ProcessEntry[], name: NodeJS.Signals): void {
  for (const { pid } of entries) {
    try {
      process.kill(pid, name);
    } catch {
      // It ended by itself.
    }
  }
}

/**
 * Ends a process that leads its own group, with its group and all descendants: SIGTERM, and after five seconds
 * SIGKILL until nothing is left. Returns the exit code that stands for how it ended, 143 or 137.
 */
export async function terminateTree(root: number): Promise<143 | 137> {
  const tree = new ProcessTree(root, true);
  const warned = new Set<number>();
  for (let waited = 0, pause = 5; waited < GRACE_MS; waited += pause, pause = Math.min(pause * 2, 50)) {
    const alive = tree.alive();
    if (alive.length === 0) return 143;
    signal(
      alive.filter(({ pid }) => !warned.has(pid)),
      "SIGTERM",
    );
    for (const { pid } of alive) warned.add(pid);
    await sleep(pause);
  }
  await killTree(tree);
  return 137;
}

/** Ends a process, its group and all descendants at once, without asking. */
export async function killAtOnce(root: number): Promise<void> {
  await killTree(new ProcessTree(root, true));
}

/** Ends everything this process started. */
export async function killDescendants(): Promise<void> {
  await killTree(new ProcessTree(process.pid, false));
}

async function killTree(tree: ProcessTree): Promise<void> {
  for (let waited = 0; waited < GRACE_MS; waited += 10) {
    const alive = tree.alive();
    if (alive.length === 0) return;
    signal(alive, "SIGKILL");
    await sleep(10);
  }
}

/** When memory runs out, let the kernel end what the user started rather than the runtime. */
export function protectRuntime(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    writeFileSync(`/proc/${pid}/oom_score_adj`, "500");
  } catch {
    // It is gone already, or the system does not let us.
  }
}
