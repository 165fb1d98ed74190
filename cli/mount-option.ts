/** The user's directories for sandboxes: `--mount DIR[=NAME][:ro|:rw]`. */
import { codeOf } from "../container/sandboxd/file-error.ts";
import { accessSync, constants, existsSync, readdirSync, realpathSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { basename, delimiter, dirname, isAbsolute, join, relative, resolve } from "node:path";
import { OWNER_ID } from "../src/shared/principal.ts";
import { actorName, SANDBOX_NAME } from "../src/shared/names.ts";
import type { MountedDirectory } from "../src/shared/mounted-directories.ts";
import { certificateVariables } from "../local/engine/certificates.ts";
import type { HostDirectory } from "../local/engine/engine-settings.ts";
import { refuseSetID } from "../local/engine/host-directories.ts";
import { systemPath } from "../local/engine/host-programs.ts";
import { messageOf } from "../src/shared/text.ts";
import { UserError } from "./exit.ts";
import { isSameOrAbove, placesOf } from "./linked-paths.ts";
import * as texts from "./texts.ts";

export interface Mounts {
  forWorker: MountedDirectory[];
  forEngine: HostDirectory[];
}

/** Directories that are never mounted: the system's files, devices and sockets. */
const SYSTEM = /^\/(bin|boot|dev|etc|lib[^/]*|proc|run|sbin|sys|usr|var)(\/|$)/;

/** Exceptions below /var, where projects may be. */
const NOT_SYSTEM = /^\/var\/(tmp\/.|www(\/|$))/;

/** Hidden directories in home directories are never mounted: they contain keys, settings and shell scripts. */
const HIDDEN = /^(\/root|\/home\/[^/]+)\/\./;

/**
 * @param own the server's own directories, with its state and token
 * @throws {UserError} that names the mount that is not possible, and the reason
 */
export async function readMounts(
  given: readonly string[],
  cwd: string,
  own: readonly string[],
): Promise<Mounts> {
  const mounts: Mounts = { forWorker: [], forEngine: [] };
  for (const text of given) {
    const { path, name, isReadOnly } = parse(text, cwd);
    const source = realDirectory(path, text);
    const reason = whyUnmountable(source, own);
    if (reason !== undefined) throw texts.mountRefused(text, source, reason);
    refuseLinks(path, source, text);
    requireAccess(source, text, isReadOnly);
    const sandbox = name ?? sandboxNameOf(path, text);
    const other = mounts.forWorker.find((mount) => mount.sandbox === sandbox);
    if (other !== undefined) throw texts.wrongMount(text, texts.MOUNT.taken(sandbox, other.source));
    const target = `/workspace/${basename(path)}`;
    mounts.forWorker.push({ sandbox, path: target, source, readOnly: isReadOnly });
    mounts.forEngine.push({
      name: await actorName(sandbox, OWNER_ID),
      from: source,
      to: target,
      isWritable: !isReadOnly,
    });
  }
  // Code in the outer directory could replace the inner one with a symbolic link.
  for (const { from: inner } of mounts.forEngine) {
    const outer = writableMountOf(
      { forEngine: mounts.forEngine.filter(({ from }) => from !== inner) },
      inner,
    );
    if (outer !== undefined) throw texts.mountNested(inner, outer);
  }
  // `find` must not come from a directory that a sandbox writes to.
  const env = { ...process.env };
  removeMounts(env, mounts, process.cwd());
  for (const [index, { from, isWritable }] of mounts.forEngine.entries())
    if (isWritable)
      await refuseSetID(from, systemPath(env)).catch((error: unknown) => {
        throw texts.wrongMount(given[index] ?? from, messageOf(error));
      });
  return mounts;
}

/**
 * Refuses symbolic links that code in a sandbox may have made. The sandbox may be from an earlier start, or of another server. A
 * link is followed only if it is in a directory that a server never mounts, such as / or the home directory.
 * @throws {UserError} that names the link
 */
function refuseLinks(path: string, source: string, text: string): void {
  const places = placesOf(path);
  const link = places.slice(1, -1).find((place) => isMountable(dirname(place)));
  // Also refuses a path that no longer leads to `source`, because code in a sandbox may have replaced a link since.
  if (link !== undefined || places.at(-1) !== source)
    throw texts.wrongMount(text, texts.MOUNT.linked(link ?? path, source));
}

function isMountable(directory: string): boolean {
  if (whyUnmountable(directory, []) === undefined) return true;
  return directory !== "/" && isMountable(dirname(directory));
}

/** @returns the mounted directory from which code could replace the file at `path`, or replace a link in its path */
export function writableMountOf({ forEngine }: Pick<Mounts, "forEngine">, path: string): string | undefined {
  const places = placesOf(path);
  return forEngine.find(
    ({ from, isWritable }) => isWritable && places.some((place) => isSameOrAbove(from, place)),
  )?.from;
}

/** Programs that the server or npm finds through PATH. The server looks for other programs in the system's directories first. */
const PROGRAMS = ["node", "npm", "python3", "claude", "opencode", "xdg-open"];

/** Variables that name files or directories with settings and certificates for the server, npm or pip. */
const PLACES = [
  ...certificateVariables,
  "VIRTUAL_ENV",
  "PIP_CONFIG_FILE",
  "npm_config_userconfig",
  "NPM_CONFIG_USERCONFIG",
  "npm_config_globalconfig",
  "XDG_CONFIG_HOME",
];

/**
 * Removes from the environment all places where a sandbox could put programs or settings, because the server would use these
 * outside the sandbox. npx adds `node_modules/.bin` of the working directory to PATH.
 * @returns the removed places, as absolute paths
 */
export function removeMounts(env: NodeJS.ProcessEnv, mounts: Mounts, cwd: string): string[] {
  const isWritable = (place: string) => writableMountOf(mounts, resolve(cwd, place)) !== undefined;
  // Relative and empty entries depend on the working directory, where a sandbox of an earlier start may have put programs.
  const all = (env.PATH ?? "").split(delimiter).filter((place) => isAbsolute(place));
  // A program may also be a symbolic link into a mounted directory.
  const kept = all.filter((place) => !["", ...PROGRAMS].some((name) => isWritable(join(place, name))));
  const removed = all.filter((place) => !kept.includes(place));
  // An empty PATH would mean the working directory. Without PATH, programs search the system's directories.
  if (kept.length === 0) delete env.PATH;
  else env.PATH = kept.join(delimiter);
  for (const name of PLACES) {
    const place = env[name];
    if (!place || !isWritable(place)) continue;
    removed.push(place);
    delete env[name];
  }
  return removed.map((place) => resolve(cwd, place));
}

/** Directory names may contain `=` and `:`. So if the whole text is an existing directory, it is the path. */
function parse(text: string, cwd: string): { path: string; name: string | undefined; isReadOnly: boolean } {
  if (text.trim() === "") throw texts.mountEmpty();
  const wholePath = resolve(cwd, text);
  if (existsSync(wholePath)) return { path: wholePath, name: undefined, isReadOnly: false };
  const isReadOnly = text.endsWith(":ro");
  const rest = text.replace(/:r[ow]$/, "");
  const path = resolve(cwd, rest);
  const [, directory, name] = /^(.*)=([^=/]*)$/s.exec(rest) ?? [];
  if (directory === undefined || name === undefined || existsSync(path))
    return { path, name: undefined, isReadOnly };
  if (!SANDBOX_NAME.test(name)) throw texts.wrongMount(text, texts.MOUNT.wrongName(name));
  return { path: resolve(cwd, directory), name, isReadOnly };
}

function realDirectory(path: string, text: string): string {
  try {
    const source = realpathSync(path);
    if (!statSync(source).isDirectory()) throw texts.wrongMount(text, texts.MOUNT.notDirectory(path));
    return source;
  } catch (error) {
    if (error instanceof UserError) throw error;
    if (codeOf(error) === "ENOENT") throw texts.wrongMount(text, texts.MOUNT.missing(path));
    throw texts.wrongMount(text, texts.MOUNT.unreadable(path));
  }
}

function requireAccess(source: string, text: string, isReadOnly: boolean): void {
  try {
    accessSync(source, constants.R_OK | constants.X_OK | (isReadOnly ? 0 : constants.W_OK));
  } catch {
    throw texts.wrongMount(text, (isReadOnly ? texts.MOUNT.unreadable : texts.MOUNT.unwritable)(source));
  }
}

function whyUnmountable(source: string, own: readonly string[]): string | undefined {
  const home = realpathSync(homedir());
  if (source === "/") return texts.UNMOUNTABLE.machine;
  if (isSameOrAbove(source, home))
    return source === home ? texts.UNMOUNTABLE.home : texts.UNMOUNTABLE.aboveHome;
  for (const directory of own.map((path) => realpathSync(path))) {
    if (isSameOrAbove(source, directory)) return texts.UNMOUNTABLE.aboveOwn(directory);
    if (isSameOrAbove(directory, source)) return texts.UNMOUNTABLE.inOwn(directory);
  }
  if (HIDDEN.test(source) || (isSameOrAbove(home, source) && relative(home, source).startsWith(".")))
    return texts.UNMOUNTABLE.hidden;
  return SYSTEM.test(source) && !NOT_SYSTEM.test(source) ? texts.UNMOUNTABLE.system : undefined;
}

/** The longest name made from a directory's. A longer one would change the sandboxes of directories that were mounted before. */
const MAX_MADE_NAME = 63;

function sandboxNameOf(path: string, text: string): string {
  const name = basename(path)
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .replaceAll(/^-|-$/g, "")
    .slice(0, MAX_MADE_NAME)
    .replace(/-$/, "");
  if (SANDBOX_NAME.test(name)) return name;
  throw texts.wrongMount(text, texts.MOUNT.nameNeeded);
}

/** The folder that COMPONENTS names. @throws {UserError} if it cannot be read, or has neither `agents` nor `commands` */
export function readComponents(text: string, cwd: string): string {
  const path = resolve(cwd, text.trim());
  try {
    if (readdirSync(path).some((name) => name === "agents" || name === "commands")) return realpathSync(path);
  } catch (error) {
    throw texts.componentsUnreadable(path, error);
  }
  throw texts.noComponents(path);
}
