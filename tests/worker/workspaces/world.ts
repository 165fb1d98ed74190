/** A sandbox without a container: its actor's workspace with a real account and bucket, and files in memory. */
import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import type { Account } from "../../../src/actors/account.ts";
import { Lifecycle } from "../../../src/actors/lifecycle.ts";
import type { ContainerPlatform } from "../../../src/actors/platform/platform.ts";
import { RestartNotice } from "../../../src/actors/restart-notice.ts";
import { SnapshotRegistry } from "../../../src/actors/snapshot-registry.ts";
import { Workspace, type WorkspaceHost } from "../../../src/actors/workspace.ts";
import type { ContinuingTask } from "../../../src/container/snapshot-client.ts";
import type { Call, Content } from "../../../container/sandboxd/operations.ts";
import type {
  NamedFiles,
  SavedSnapshot,
  Plan,
  PlanCall,
  Read,
  SnapshotRequests,
} from "../../../container/sandboxd/snapshots/snapshot-requests.ts";
import type { Env } from "../../../src/shared/config.ts";
import { ToolError, outcomeOf } from "../../../src/shared/errors.ts";
import type { ObjectStore } from "../../../src/storage/object-store.ts";
import { withTestTimers } from "../test-timers.ts";
import { bucket as objects } from "../support.ts";

type Files = Map<string, string>;

/** A file, and the place of its content in a pack. */
interface FakeEntry extends Read {
  path: string;
}

/** The hash of the files of every new container. */
const SYSTEM = "0".repeat(64);

const never = new Promise<never>(() => undefined);
const encode = (text: string) => new TextEncoder().encode(text);

/** The handlers of requests about saves. */
type Sandboxd = {
  [Name in keyof SnapshotRequests]: (
    input: Call<SnapshotRequests[Name]> & Content<SnapshotRequests[Name]["up"]>,
  ) => unknown;
};

/** A container with a sandboxd that saves and restores its files. */
export class FakeContainer {
  readonly files: Files = new Map();
  /** The conversation of an agent, and the restored conversations by task id. */
  readonly conversation: Files = new Map();
  readonly restored = new Map<string, Files>();
  snapshot: string | undefined;
  isRestoring = false;
  left: Plan["left"] = { count: 0, bytes: 0, largest: [] };
  /** The files that could not be read during a save. */
  unreadable: SavedSnapshot["unreadable"];
  /** The file that a program renames during the next save, so that the save misses it. */
  missed: string | undefined;
  /** Whether packages are being installed, which no save contains yet. */
  isInstalling = false;
  /** The files of the last save or restore, and of uncommitted saves. */
  #index = new Map<string, FakeEntry & { content: string }>();
  readonly #saves = new Map<string, { entries: (FakeEntry & { content: string })[]; pack: string }>();
  #restoring: { entries: FakeEntry[]; target: ContinuingTask | undefined } = {
    entries: [],
    target: undefined,
  };

  plan({ id, base, repack, isArchive = false, conversation }: PlanCall): Plan {
    const files = conversation ? this.conversation : new Map(this.files);
    if (!conversation && this.missed !== undefined) files.delete(this.missed);
    const bytes = [...files.values()].join("").length;
    const counts = { files: files.size, bytes, left: this.left, isIncomplete: this.isInstalling };
    const isBase = !conversation && base === this.snapshot;
    if (!isBase && !isArchive) return { state: "conflict", ...counts };
    let pack = "";
    const entries = [...files].map(([path, content]) => {
      const known = isBase ? this.#index.get(path) : undefined;
      if (known?.content === content && !repack.includes(known.pack)) return known;
      const from = pack.length;
      pack += content;
      return { path, content, pack: id, from, to: pack.length };
    });
    const isSame =
      entries.length === this.#index.size && entries.every((entry) => this.#index.get(entry.path) === entry);
    if (isBase && isSame) return { state: "unchanged", ...counts };
    this.#saves.set(id, { entries, pack });
    return { state: "changed", ...counts };
  }

  pack(id: string): string {
    return this.#save(id).pack;
  }

  manifest(id: string): string {
    return JSON.stringify(
      this.#save(id).entries.map(({ path, pack, from, to }) => ({ path, pack, from, to })),
    );
  }

  done(id: string) {
    const isIncomplete = this.missed !== undefined || this.isInstalling;
    this.missed = undefined;
    const { entries } = this.#save(id);
    // Empty files have no content in a pack.
    const stored = entries.filter(({ from, to }) => from < to);
    const packs = Map.groupBy(stored, ({ pack }) => pack);
    return {
      packs: [...packs].map(([pack, parts]) => {
        const live = parts.reduce((sum, { from, to }) => sum + to - from, 0);
        // sandboxd does not know the length of an older pack.
        return { id: pack, length: pack === id ? this.pack(id).length : live, live };
      }),
      manifestBytes: this.manifest(id).length,
      files: entries.length,
      bytes: entries.reduce((sum, { content }) => sum + content.length, 0),
      unreadable: this.unreadable,
      isIncomplete,
    };
  }

  commit(id: string): void {
    if (this.snapshot === id) return;
    this.#index = new Map(this.#save(id).entries.map((entry) => [entry.path, entry]));
    this.snapshot = id;
  }

  restore(manifest: string, target: ContinuingTask | undefined): Read[] {
    if (target === undefined) {
      this.isRestoring = true;
      this.files.clear();
    }
    const entries = JSON.parse(manifest) as FakeEntry[];
    this.#restoring = { entries, target };
    return entries.filter(({ from, to }) => from < to).map(({ pack, from, to }) => ({ pack, from, to }));
  }

  data(id: string, body: string): void {
    const { entries, target } = this.#restoring;
    const files: Files = target === undefined ? this.files : new Map();
    let at = 0;
    for (const entry of entries) {
      const content = body.slice(at, (at += entry.to - entry.from));
      files.set(entry.path, content);
      if (target === undefined) this.#index.set(entry.path, { ...entry, content });
    }
    if (target) this.restored.set(target.task, files);
    if (target) return;
    this.snapshot = id;
    this.isRestoring = false;
  }

  #save(id: string) {
    const save = this.#saves.get(id);
    if (!save) throw new ToolError("file_system", `there is no save ${id}`);
    return save;
  }
}

/** A call to a service outside the actor. */
export interface Step {
  /** For example `bucket put`, `account commitSave` or `sandboxd plan`. */
  name: string;
  /** Before the call is made, or before its response arrives. */
  when: "before" | "after";
}

export class World {
  container: FakeContainer | undefined;
  workspace: Workspace;
  /** Starts containers and restores their workspaces. */
  lifecycle: Lifecycle;
  #containerEnded = () => {};
  /** Called at each step. It may throw, be slow, or never return. */
  onStep: (step: Step) => unknown = () => undefined;
  readonly steps: string[] = [];
  readonly reports: unknown[] = [];
  /** The files that sandboxd reports as not restored. */
  dropped: NamedFiles | undefined;
  notice: RestartNotice;
  readonly registry: SnapshotRegistry;
  readonly sandbox: string;
  readonly isSaved: boolean;
  /** How many bytes of files a save of the next actor may have. */
  maxBytes = 1e9;
  /** Whether the saved workspace stays when the sandbox is removed. */
  isKept = false;
  readonly #kv: Map<string, unknown>;
  readonly #prefix = `${crypto.randomUUID()}/`;
  #actor = 0;

  constructor(registry: SnapshotRegistry, sandbox = "a", kv = new Map<string, unknown>(), isSaved = true) {
    this.isSaved = isSaved;
    this.registry = registry;
    this.sandbox = sandbox;
    this.#kv = kv;
    this.notice = new RestartNotice(this.#storage());
    const { host, platform } = this.#host();
    this.workspace = new Workspace(host);
    this.lifecycle = this.#createLifecycle(platform);
  }

  /** Starts a container with its workspace, as a call does. */
  async ready(): Promise<void> {
    await this.lifecycle.admit({ principalID: "p", sandbox: this.sandbox });
    await this.lifecycle.waitUntilReady();
  }

  #createLifecycle(platform: ContainerPlatform): Lifecycle {
    const owner = { principalID: "p", sandbox: this.sandbox, principalHash: "h" };
    const lifecycle = new Lifecycle({
      platform,
      environment: { variables: {} },
      account: {
        owner,
        isKnown: async () => true,
        register: async () => "stopped",
        keepSandbox: () => undefined,
        withdraw: async () => undefined,
        reportStop: () => undefined,
        reportDestruction: async () => ({
          wasKnown: true,
          wasSaved: true,
          isKept: this.isKept,
          checkpoints: 0,
        }),
        logEvent: () => undefined,
        isInUse: () => false,
        unusedMs: 86_400_000,
        noteCheckpoint: () => undefined,
      },
      network: { prepareStart: () => undefined, enforce: async () => true },
      workspace: this.workspace,
      notice: this.notice,
      activity: { isBusy: false, hasCalls: false },
      background: (work) => void work.catch(() => undefined),
    });
    lifecycle.subscribe(this.notice, this.workspace);
    return lifecycle;
  }

  /** Another sandbox of the same principal: its objects have the same prefix in the bucket. */
  createSibling(sandbox: string, isSaved = true): World {
    const other = new World(this.registry, sandbox, new Map(), isSaved);
    Reflect.set(other, "prefix", this.prefix);
    return other;
  }

  prefix = this.#prefix;

  get bucket(): ObjectStore {
    return objects;
  }

  get files(): Files {
    if (!this.container) throw new Error("there is no container");
    return this.container.files;
  }

  /** Writes a file as a call does. */
  write(path: string, content: string): void {
    this.files.set(path, content);
    this.workspace.noteChange();
  }

  /** Deletes the last bytes of all saved states from the bucket, or everything, or leaves empty objects. */
  async loseObjects({ bytes = Infinity, areLeftEmpty = false } = {}): Promise<void> {
    const { keys } = await this.bucket.list(this.prefix);
    for (const key of keys) {
      const content = await (await this.bucket.get(key))?.bytes();
      await this.bucket.delete([key]);
      if (areLeftEmpty) await this.bucket.put(key, new Uint8Array());
      else if (content && content.length > bytes) await this.bucket.put(key, content.slice(0, -bytes));
    }
  }

  kill(): void {
    this.container = undefined;
    this.#containerEnded();
  }

  /** Evicts the actor, and creates the next one. */
  evict(): void {
    this.#actor++;
    this.notice = new RestartNotice(this.#storage());
    const { host, platform } = this.#host();
    this.workspace = new Workspace(host);
    this.lifecycle = this.#createLifecycle(platform);
  }

  #storage() {
    const actor = this.#actor;
    const kv = this.#kv;
    const isAlive = () => actor === this.#actor;
    return {
      get: (key: string) => structuredClone(kv.get(key)),
      put: (key: string, value: unknown) => void (isAlive() && kv.set(key, structuredClone(value))),
      delete: (key: string) => isAlive() && kv.delete(key),
    } as WorkspaceHost["kv"];
  }

  #host(): { host: WorkspaceHost; platform: ContainerPlatform } {
    const actor = this.#actor;
    const isAlive = () => actor === this.#actor;
    const step = async <T>(name: string, work: () => T | Promise<T>): Promise<T> => {
      if (!isAlive()) return never;
      this.steps.push(name);
      await this.onStep({ name, when: "before" });
      if (!isAlive()) return never;
      const value = await work();
      await this.onStep({ name, when: "after" });
      return isAlive() ? value : never;
    };
    const requireContainer = () => {
      if (!this.container) throw new ToolError("sandbox_restarted", "there is no container");
      return this.container;
    };
    const { registry } = this;
    const account: Record<string, (...args: never[]) => Promise<unknown>> = {};
    const methods = {
      workspace: (sandbox: string) =>
        this.isSaved ? registry.current(sandbox) : registry.currentArchive(sandbox),
      beginSave: (...save: Parameters<SnapshotRegistry["begin"]>) => outcomeOf(() => registry.begin(...save)),
      workspacesFull: () => registry.fullError().toFailure(),
      archive: (...args: Parameters<SnapshotRegistry["archive"]>) =>
        outcomeOf(() => registry.archive(...args)),
      archivedConversation: (run: string) => registry.findArchive(run, "conversation"),
      setUpOutcome: (key: string) => registry.findArchive(key, "workspace"),
      startFromOutcome: (sandbox: string, key: string) => outcomeOf(() => registry.forkArchive(sandbox, key)),
      removeArchive: (run: string) => registry.removeArchive(run),
      commitSave: (...args: Parameters<SnapshotRegistry["commit"]>) =>
        outcomeOf(() => registry.commit(...args)),
      abandonSave: (...args: Parameters<SnapshotRegistry["abandonSave"]>) => registry.abandonSave(...args),
      checkpoint: (...args: Parameters<SnapshotRegistry["checkpoint"]>) =>
        outcomeOf(() => registry.checkpoint(...args)),
      requireCheckpoint: (id: string) => outcomeOf(() => registry.requireCheckpoint(id)),
      restoreCheckpoint: (...args: Parameters<SnapshotRegistry["restoreCheckpoint"]>) =>
        outcomeOf(() => registry.restoreCheckpoint(...args)),
    };
    for (const [name, method] of Object.entries(methods))
      account[name] = (...args) =>
        step(`account ${name}`, () => (method as (...args: never[]) => unknown)(...args));
    const bucket = new Proxy(this.bucket, {
      get: (target, name) => {
        const method = Reflect.get(target, name) as (...args: unknown[]) => Promise<unknown>;
        return (...args: unknown[]) =>
          step(`bucket ${String(name)}`, async () => Reflect.apply(method, target, args));
      },
    });
    const streamOf = (text: string) => {
      return { body: new Response(encode(text)).body as ReadableStream<Uint8Array>, length: text.length };
    };
    const textOf = (body: ReadableStream) => new Response(body).text();
    const sandboxd: Sandboxd = {
      mark: () => ({
        snapshot: requireContainer().snapshot,
        isRestoring: requireContainer().isRestoring,
        isEmpty: requireContainer().files.size === 0,
      }),
      system: () => (requireContainer(), { system: SYSTEM }),
      prioritize: () => ({}),
      plan: ({ body }) => requireContainer().plan(body),
      pack: ({ id }) => streamOf(requireContainer().pack(id)),
      manifest: ({ id }) => streamOf(requireContainer().manifest(id)),
      done: ({ id }) => requireContainer().done(id),
      commit: ({ id }) => requireContainer().commit(id),
      restore: async ({ body, task }) => {
        const target = task === undefined ? undefined : { task };
        return { reads: requireContainer().restore(await textOf(body), target), dropped: this.dropped };
      },
      data: async ({ id, body }) => requireContainer().data(id, await textOf(body)),
    };
    const hasContainer = () => this.container !== undefined;
    const platform: ContainerPlatform = {
      get isRunning() {
        return hasContainer();
      },
      start: () => step("start", () => void (this.container = new FakeContainer())),
      end: async () => {
        if (isAlive()) this.container = undefined;
      },
      fetch: () => never,
      onEnd: (listener) => (this.#containerEnded = listener),
      onIdle: () => undefined,
      noteUse: () => undefined,
    };
    const host: WorkspaceHost = {
      kv: this.#storage(),
      sync: () => step("sync", () => undefined),
      platform,
      snapshots: {
        call: (name, input, signal) =>
          Promise.race([
            step(`sandboxd ${name}`, async () => sandboxd[name](input as never) as never),
            new Promise<never>((_resolve, reject) =>
              signal.addEventListener("abort", () => reject(signal.reason)),
            ),
          ]),
      },
      bucket,
      prefix: () => this.prefix,
      account: () => account as never,
      sandbox: () => this.sandbox,
      isSaved: this.isSaved,
      maxBytes: this.maxBytes,
      restartNotice: this.notice,
      background: (work) => void work.catch(() => undefined),
      report: (error) => this.reports.push(error),
    };
    return { host, platform };
  }
}

/** Runs a test with a new registry, in an actor. */
export async function withWorld(work: (world: World) => Promise<void>, limits = {}): Promise<void> {
  const accounts = (env as Env).Account as DurableObjectNamespace<Account>;
  await runInDurableObject(accounts.getByName(crypto.randomUUID()), (_account, { storage }) =>
    withTestTimers(() =>
      work(
        new World(new SnapshotRegistry(storage, { checkpoints: 100, workspaceBytes: 1e9, ...limits }, 30)),
      ),
    ),
  );
}

/** Starts a container, and saves its first file. */
export async function prepare(world: World): Promise<void> {
  await world.ready();
  world.write("kept", "first");
  await world.workspace.save();
}

/** The files after the container has ended without a save. */
export async function afterCrash(world: World): Promise<Record<string, string>> {
  world.kill();
  await world.ready();
  return Object.fromEntries(world.files);
}

/** Evicts the actor at a step, and then resolves. */
export function evictAt(world: World, at: number): Promise<string> {
  return interruptAt(world, at, true).evicted;
}

/** Evicts the actor at a step, or lets the step fail. `evicted` resolves at the eviction. */
function interruptAt(world: World, at: number, isEvicted: boolean) {
  const { promise, resolve } = Promise.withResolvers<string>();
  const interruption = { hasHappened: false, evicted: promise };
  let step = 0;
  world.onStep = ({ when }) => {
    if ((!isEvicted && when === "after") || step++ !== at) return;
    interruption.hasHappened = true;
    if (!isEvicted) throw new Error("it is not there");
    world.evict();
    resolve("evicted");
  };
  return interruption;
}

/** Tests evict the actor before each step, but let only every third step fail, because failing at each step would take long. */
const WAYS = [
  [true, 2],
  [false, 3],
] as const;

/** Calls `work` with each kind of interruption until `work` ends without one. */
export async function interruptSteps(
  work: (world: World, interrupt: (other?: World) => ReturnType<typeof interruptAt>) => Promise<void>,
): Promise<void> {
  for (const [isEvicted, stride] of WAYS)
    for (let at = 0, isOver = false; !isOver; at += stride)
      await withWorld(async (world) => {
        let interruption: ReturnType<typeof interruptAt> | undefined;
        await work(world, (other = world) => (interruption = interruptAt(other, at, isEvicted)));
        isOver = interruption?.hasHappened !== true;
      });
}
