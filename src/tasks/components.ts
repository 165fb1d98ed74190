/**
 * Definitions of agents and commands that the operator offers to tasks: Markdown with front matter in Claude Code's format, in
 * `agents/<name>.md` and `commands/<name>.md` below a path in the bucket, or in a folder of the local machine.
 */
import * as z from "zod";
import type { Config, Env } from "../shared/config.ts";
import type { ToolError } from "../shared/errors.ts";
import { type ObjectStore, objectStore } from "../storage/object-store.ts";
import { log } from "../shared/log.ts";
import { announcedBytes } from "../shared/stream-bytes.ts";
import { cutText, textOf } from "../shared/text.ts";
import { UNUSABLE, noDefinition, notADefinition, tooManyNames, unusableDefinition } from "./texts.ts";

const COMPONENT_KINDS = ["agents", "commands"] as const;

type ComponentKind = (typeof COMPONENT_KINDS)[number];

export type ComponentNames = Record<ComponentKind, readonly string[]>;

export interface Definition {
  kind: ComponentKind;
  name: string;
  text: string;
}

export const taskComponents = z.object({
  /** `<kind>/<name>`, as in `offered`. */
  wanted: z.array(z.string()).readonly(),
  /** All definitions of the operator, for an error; empty if the operator has every wanted one. */
  offered: z.array(z.string()).readonly(),
});

type TaskComponents = z.infer<typeof taskComponents>;

/** A name is its file's name without `.md`, not a path. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

const MAX_NAMED = 10;

/** The most definitions of each kind that are offered to tasks: the first by name. */
const MAX_OFFERED = 100;

const MAX_BYTES = 64 * 1024;

interface Source {
  /** The file names of a kind, in any order. The list may be incomplete if there are very many. */
  files(kind: ComponentKind): Promise<string[]>;
  read(path: string): Promise<Uint8Array | Unreadable | undefined>;
}

/** Why a file cannot be read, as the end of a sentence. */
interface Unreadable {
  problem: string;
}

const TOO_LARGE: Unreadable = { problem: UNUSABLE.tooLarge(MAX_BYTES) };

function sourceOf(env: Env, { tasks: { componentsPrefix } }: Config): Source | undefined {
  if (env.COMPONENTS_FOLDER) return folderSource(env.COMPONENTS_FOLDER);
  return componentsPrefix === undefined ? undefined : bucketSource(objectStore(env), componentsPrefix);
}

function bucketSource(bucket: ObjectStore, below: string): Source {
  return {
    async files(kind) {
      const prefix = `${below}/${kind}/`;
      const { keys } = await bucket.list(prefix, "/");
      return keys.map((key) => key.slice(prefix.length));
    },
    async read(path) {
      const object = await bucket.get(`${below}/${path}`);
      if (object === undefined || object.size <= MAX_BYTES) return await object?.bytes();
      await object.body.cancel();
      return TOO_LARGE;
    },
  };
}

const folderEntries = z.array(z.object({ name: z.string(), type: z.string() }));

/** workerd serves a directory as a JSON list of the entries. */
function folderSource(folder: Fetcher): Source {
  return {
    async files(kind) {
      const response = await folder.fetch(`http://folder/${kind}/`);
      const entries = isDirectory(response) ? folderEntries.parse(JSON.parse(await response.text())) : [];
      if (!isDirectory(response)) await response.body?.cancel();
      return entries.filter(({ type }) => type !== "directory").map(({ name }) => name);
    },
    async read(path) {
      // `fetch` throws if the operating system refuses access.
      const response = await folder.fetch(`http://folder/${path}`).catch(() => undefined);
      if (!response) return { problem: UNUSABLE.unreadable };
      const size = announcedBytes(response.headers) ?? Infinity;
      if (response.ok && size <= MAX_BYTES) return await response.bytes();
      await response.body?.cancel();
      if (isDirectory(response)) return { problem: UNUSABLE.directory };
      return response.ok ? TOO_LARGE : undefined;
    },
  };
}

function isDirectory({ ok, headers }: Response): boolean {
  return ok && /json/.test(headers.get("content-type") ?? "");
}

export async function listComponents(env: Env, config: Config): Promise<ComponentNames> {
  const source = sourceOf(env, config);
  const named = async (kind: ComponentKind) => {
    const files = (await source?.files(kind)) ?? [];
    const names = files.flatMap((file) => (file.endsWith(".md") ? [file.slice(0, -3)] : []));
    return names
      .filter((name) => NAME.test(name))
      .toSorted()
      .slice(0, MAX_OFFERED);
  };
  const [agents, commands] = await Promise.all([named("agents"), named("commands")]);
  return { agents, commands };
}

/** Checks names of definitions and returns them as `<kind>/<name>`. @throws {ToolError} for an invalid name, or too many */
export function wantedComponents(named: Partial<ComponentNames>): string[] {
  return COMPONENT_KINDS.flatMap((kind) => checkNames(kind, named[kind] ?? []));
}

/**
 * The definitions that a task names, with the content of the operator's definitions. Empty if the task names none.
 * @param mayHaveOwn whether the task's directory may have other definitions; only the sandbox knows them
 * @throws {ToolError} for a missing or unusable definition
 */
export async function componentsFor(
  env: Env,
  config: Config,
  wanted: readonly string[],
  mayHaveOwn: boolean,
): Promise<{ components?: TaskComponents; definitions?: Definition[] }> {
  if (wanted.length === 0) return {};
  const source = sourceOf(env, config);
  const read = async (path: string) => {
    const found = source && (await definitionIn(source, path));
    if (found && "problem" in found) throw unusableError(config, path, found);
    return found;
  };
  const found = await Promise.all(wanted.map(read));
  const definitions = found.filter((each) => each !== undefined);
  const missing = wanted.filter((_, index) => found[index] === undefined);
  if (missing.length === 0) return { components: { wanted, offered: [] }, definitions };
  const names = await listComponents(env, config);
  const offered = COMPONENT_KINDS.flatMap((kind) => names[kind].map((name) => `${kind}/${name}`));
  if (mayHaveOwn) return { components: { wanted, offered }, definitions };
  const listed = missing.find((path) => offered.includes(path));
  if (listed !== undefined) throw unusableError(config, listed, { problem: UNUSABLE.brokenLink });
  throw noDefinition(missing, offered);
}

function checkNames(kind: ComponentKind, given: readonly string[]): string[] {
  if (given.length > MAX_NAMED) throw tooManyNames(kind, given.length, MAX_NAMED);
  const names = [...new Set(given)];
  const invalidName = names.find((name) => !NAME.test(name));
  if (invalidName === undefined) return names.map((name) => `${kind}/${name}`);
  throw notADefinition(kind, cutText(invalidName, 100));
}

/** The error for a broken definition of the operator. Also logs the problem. */
function unusableError(config: Config, component: string, { problem }: Unreadable): ToolError {
  log(config, { event: "component", component, problem });
  return unusableDefinition(component, problem);
}

async function definitionIn(source: Source, path: string): Promise<Definition | Unreadable | undefined> {
  const bytes = await source.read(`${path}.md`);
  if (bytes === undefined || "problem" in bytes) return bytes;
  const text = textOf(bytes);
  if (text === undefined) return { problem: UNUSABLE.notText };
  const [kind, name] = split(path);
  // Claude Code identifies a subagent by the name in its front matter, and ignores a file without that name.
  if (kind === "agents" && nameIn(text) !== name) return { problem: UNUSABLE.otherName(name) };
  return { kind, name, text };
}

function split(path: string): [ComponentKind, string] {
  const [kind, name = ""] = path.split("/");
  return [kind === "agents" ? "agents" : "commands", name];
}

function nameIn(text: string): string | undefined {
  const front = /^\uFEFF?---\r?\n([^]*?)\r?\n---/.exec(text)?.[1];
  return front && /^name:[ \t]*(["']?)(.*?)\1[ \t]*\r?$/m.exec(front)?.[2];
}
