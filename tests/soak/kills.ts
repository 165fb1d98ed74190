/**
 * Kills sandboxes at random moments, also in the middle of saves and restores, during changes of up to 20 MB. Compares the
 * restored files with the acknowledged ones. Prints the figures, and ends with 1 after a corrupt file, a refused restore or a
 * loss of more than five seconds.
 *
 *   npm run soak -- --kills                     1,000 kills in three sandboxes; takes an hour
 *   SOAK_MINUTES=5 npm run soak -- --kills      as many as five minutes allow
 */
import { createHash } from "node:crypto";
import { procText } from "../../container/sandboxd/proc-stat.ts";
import { type FaultServer, startFaultServer } from "../faults/support.ts";
import { openFiles, type Process, tree } from "../setup/processes.ts";
import { sleep } from "../setup/until.ts";

const KILLS = 1000;
const MINUTES = Number(process.env.SOAK_MINUTES ?? 120);
const SANDBOXES = ["kills-0", "kills-1", "kills-2"];
const MAX_LOSS_MS = 5000;

/** The maximum that a round writes, bytes. */
const ROUND_BYTES = 20_000_000;

/** The maximum time until a killed sandbox works again, milliseconds. */
const BACK_MS = 180_000;

const SMALL = [
  "/workspace/small",
  "/data/small",
  "/root/.config/small",
  "/opt/small",
  "/usr/local/bin/small",
];
const LARGE = ["/workspace/large", "/data/large", "/root/large"];
const DIRECTORIES = "mkdir -p /data /root/.config /opt /usr/local/bin";

/** Replaces a file as a whole. The file has its number, the hash of its content, and the content. */
const WRITE_LARGE = `
import hashlib, os, sys
path, number, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
content = os.urandom(size)
with open(path + ".new", "wb") as file:
    file.write(f"{number} {hashlib.sha256(content).hexdigest()}\\n".encode() + content)
os.rename(path + ".new", path)
`;
const READ_FILES = `
import hashlib, json, sys
found = {}
for path in sys.argv[1:]:
    try:
        with open(path, "rb") as file:
            number, digest = file.readline().split()
            isWhole = hashlib.sha256(file.read()).hexdigest() == digest.decode()
            found[path] = int(number) if isWhole else -1
    except FileNotFoundError:
        found[path] = 0
    except ValueError:
        found[path] = -1
print(json.dumps(found))
`;

type Moment = "any" | "save" | "restore";

const figures = {
  kills: { any: 0, save: 0, restore: 0 },
  rounds: 0,
  writes: 0,
  bytes: 0,
  losses: 0,
  late: 0,
  oldestMs: 0,
  corrupt: 0,
  refused: 0,
};
const problems: string[] = [];
let lastRestoreKill = 0;

function reportProblem(what: string): void {
  problems.push(what);
  if (problems.length < 50) console.error(what);
}

const killsSoFar = () => Object.values(figures.kills).reduce((sum, one) => sum + one, 0);

/** The path of a sandbox's files on this machine, through its first process. */
const pathInSandbox = (pid: number, path: string) => `/proc/${pid}/root${path}`;

function firstProcesses(server: FaultServer): Process[] {
  return server.all().filter(({ command }) => command === "sbx-init");
}

function kill(pid: number, moment: Moment): number {
  const at = Date.now();
  try {
    process.kill(pid, "SIGKILL");
    figures.kills[moment]++;
  } catch {
    // The process has ended by itself.
  }
  return at;
}

/** Whether a sandboxd reads a large file for a save. */
function isSaving(pid: number): boolean {
  return openFiles(pid).some((file) => file.endsWith("/large"));
}

const random = (least: number, most: number) => least + Math.random() * (most - least);
const pick = <T>(all: readonly T[]): T => all[Math.floor(Math.random() * all.length)] as T;

/** One version of a file; `at` is when it was acknowledged. */
interface Version {
  number: number;
  at: number | undefined;
}

class Victim {
  readonly #server: FaultServer;
  readonly #sandbox: string;
  #number = 0;
  /** The time at which the restored state was saved. */
  #savedAt = 0;
  readonly #versions = new Map<string, Version[]>([...SMALL, ...LARGE].map((path) => [path, []]));

  constructor(server: FaultServer, sandbox: string) {
    this.#server = server;
    this.#sandbox = sandbox;
  }

  async begin(): Promise<void> {
    await this.#server.sh(`${DIRECTORIES}; echo -n ${this.#sandbox} >/workspace/name`, {
      sandbox: this.#sandbox,
    });
    // Every restored state then contains the file `name`.
    await this.#server.call("checkpoint_sandbox", { sandbox: this.#sandbox });
  }

  async round(): Promise<void> {
    const first = firstProcesses(this.#server).find(
      ({ pid }) => procText(pathInSandbox(pid, "/workspace/name")) === this.#sandbox,
    );
    if (!first) throw new Error(`${this.#sandbox} does not run`);
    const moment = pick<Moment>(["any", "any", "save", "restore"]);
    let killedAt = 0;
    const writing = this.#write(() => killedAt > 0, moment === "save");
    if (moment === "save") {
      const latest = Date.now() + 10_000;
      const daemon = tree(first.pid).find(({ command }) => command === "sbxd")?.pid ?? Number.NaN;
      while (!isSaving(daemon) && Date.now() < latest) await sleep(2);
      const isSeen = isSaving(daemon);
      await sleep(random(0, 300));
      killedAt = kill(first.pid, isSeen ? "save" : "any");
    } else {
      await sleep(random(0, 7000));
      killedAt = kill(first.pid, "any");
    }
    await writing;
    const found = this.#waitForFiles(killedAt);
    if (moment === "restore") await this.#killDuringRestore();
    this.#compare(await found, killedAt);
    figures.rounds++;
  }

  /** Writes until `isOver`: many small files, or also large ones. */
  async #write(isOver: () => boolean, isLarge: boolean): Promise<void> {
    let remaining = isLarge || Math.random() < 0.5 ? random(1_000_000, ROUND_BYTES) : 0;
    let isFirst = isLarge;
    while (!isOver()) {
      if (remaining > 100_000 && (isFirst || Math.random() < 0.3)) {
        const size = Math.floor(isFirst ? remaining : random(100_000, remaining));
        remaining -= size;
        isFirst = false;
        await this.#writeLarge(pick(LARGE), size);
      } else await this.#writeSmall(pick(SMALL));
      await sleep(random(0, 600));
    }
  }

  async #writeSmall(path: string): Promise<void> {
    const content = "x".repeat(random(0, 3000));
    const hash = createHash("sha256").update(content).digest("hex");
    await this.#recordWrite(path, content.length, (number) =>
      this.#server.call("write_file", {
        sandbox: this.#sandbox,
        path,
        content: `${number} ${hash}\n${content}`,
      }),
    );
  }

  async #writeLarge(path: string, size: number): Promise<void> {
    await this.#recordWrite(path, size, (number) =>
      this.#server.call("run_command", {
        sandbox: this.#sandbox,
        command: `python3 -c '${WRITE_LARGE}' ${path} ${number} ${size}`,
      }),
    );
  }

  /** Calls `write` with the number of the next version, and records whether the server acknowledged it. */
  async #recordWrite(
    path: string,
    bytes: number,
    write: (number: number) => ReturnType<FaultServer["call"]>,
  ): Promise<void> {
    const version: Version = { number: ++this.#number, at: undefined };
    this.#versions.get(path)?.push(version);
    try {
      const { isError, structured } = await write(version.number);
      if (isError || (structured.state ?? "succeeded") !== "succeeded") return;
      version.at = Date.now();
      figures.writes++;
      figures.bytes += bytes;
    } catch {
      // The kill interrupted the request.
    }
  }

  /** Waits for a container that is being restored, and kills it. */
  async #killDuringRestore(): Promise<void> {
    const latest = Date.now() + 10_000;
    const wait = random(0, 50);
    const findRestoring = () =>
      firstProcesses(this.#server).find(({ pid }) =>
        procText(pathInSandbox(pid, "/var/lib/sandbox-mcp/snapshot/mark")).includes('"isRestoring":true'),
      );
    while (Date.now() < latest) {
      if (findRestoring()) {
        await sleep(wait);
        const first = findRestoring();
        if (first) {
          lastRestoreKill = kill(first.pid, "restore");
          return;
        }
      }
      await sleep(2);
    }
  }

  /** The number of each file after the restore: 0 for a missing file, -1 for a corrupt one. */
  async #waitForFiles(killedAt: number): Promise<Map<string, number>> {
    const until = Date.now() + BACK_MS;
    const paths = [...SMALL, ...LARGE].join(" ");
    for (;;) {
      const askedAt = Date.now();
      const { text, structured } = await this.#server.call("run_command", {
        sandbox: this.#sandbox,
        command: `python3 -c '${READ_FILES}' ${paths}`,
      });
      if (structured.state === "succeeded") {
        this.#savedAt = Date.parse(/as saved at (\S+)/.exec(text)?.[1] ?? "");
        return new Map(Object.entries(JSON.parse(String(structured.stdout)) as Record<string, number>));
      }
      // The server may not have noticed the kill yet. The next call starts in a new container.
      const isOfKill = text.startsWith("state: lost") && askedAt < Math.max(killedAt, lastRestoreKill) + 2000;
      if (!isOfKill && lastRestoreKill < askedAt - 1000) {
        figures.refused++;
        reportProblem(
          `${this.#sandbox} returned ${text.slice(0, 500)}, ${askedAt - killedAt} ms after the kill`,
        );
      }
      if (Date.now() > until) throw new Error(`${this.#sandbox} did not come back`);
      await sleep(500);
    }
  }

  #compare(found: ReadonlyMap<string, number>, killedAt: number): void {
    for (const [path, versions] of this.#versions) {
      const number = found.get(path) ?? 0;
      const isKnown = number === 0 || versions.some((version) => version.number === number);
      if (!isKnown) {
        figures.corrupt++;
        reportProblem(`${this.#sandbox}: ${path} came back as ${number < 0 ? "a corrupt file" : number}`);
      }
      const lost = versions.filter((version) => version.number > number && version.at !== undefined);
      const oldest = Math.min(...lost.map(({ at = 0 }) => at));
      if (lost.length > 0) {
        const ms = (oldest > killedAt ? Math.max(killedAt, lastRestoreKill) : killedAt) - oldest;
        figures.losses++;
        figures.oldestMs = Math.max(figures.oldestMs, ms);
        if (ms > MAX_LOSS_MS) {
          figures.late++;
          reportProblem(
            `${this.#sandbox}: ${path} lost ${lost.length} versions, the oldest ${ms} ms before the kill; saved ${killedAt - this.#savedAt} ms before`,
          );
        }
      }
      // Versions newer than the restored one are lost, and must not come back. Older ones may come back with an older state.
      const earlier = versions.filter((version) => version.number <= number);
      for (const version of earlier) version.at ??= Date.now();
      this.#versions.set(path, earlier);
    }
  }
}

function print(): void {
  const { kills, rounds, writes, bytes, losses, late, oldestMs, corrupt, refused } = figures;
  console.log(
    [
      `${killsSoFar()} kills in ${rounds} rounds (${kills.save} seen in the middle of a save, ${kills.restore} of a restore)`,
      `${writes} acknowledged writes of ${Math.round(bytes / 1e6)} MB`,
      `${losses} files lost acknowledged changes, the oldest of them made ${oldestMs} ms before the kill; ${late} lost changes older than ${MAX_LOSS_MS} ms`,
      `${corrupt} corrupt files, ${refused} refused starts`,
    ].join("\n"),
  );
}

const server = await startFaultServer({
  env: { MAX_RUN_SECONDS_PER_DAY: "100000000", MAX_CONCURRENT_RUNS: "1000" },
});
const timer = setInterval(() => print(), 60_000);
const endAt = Date.now() + MINUTES * 60_000;
try {
  await Promise.all(
    SANDBOXES.map(async (sandbox) => {
      const victim = new Victim(server, sandbox);
      await victim.begin();
      while (Date.now() < endAt && killsSoFar() < KILLS) await victim.round();
    }),
  );
} finally {
  clearInterval(timer);
  print();
  if (problems.length > 0) console.error(server.server.stderr().slice(-5000));
  await server.close();
}
process.exitCode = figures.corrupt + figures.late + figures.refused + (killsSoFar() > 0 ? 0 : 1) > 0 ? 1 : 0;
