import type { Base } from "./base.ts";
import type { ManifestEntry, Manifest } from "./manifest.ts";
import { parentPath, kindOf, unitOf } from "./scope.ts";

const PACKAGE = /^var\/lib\/dpkg\/info\/([^/:]+)(?::\w+)?\.list$/;
export const NODE = process.version.split(".", 1)[0] ?? "";

/**
 * Selects the entries of a state that can be restored on a base. For the same image, these are all entries. For another image,
 * these are the user's files and compatible installed programs, but nothing that the image's package manager owns.
 */
export function entriesFor(
  base: Base,
  { image, node }: Manifest,
  entries: readonly ManifestEntry[],
): { entries: readonly ManifestEntry[]; dropped: string[] } {
  if (image === undefined || image === base.id) return { entries, dropped: [] };
  const { pythons } = base;
  const keptEntries = new Map<string, ManifestEntry>();
  const dropped = new Set<string>();
  const isKept = ({ path, type }: ManifestEntry): boolean => {
    const kind = kindOf(path);
    if (kind === "own") return true;
    if (kind === "system" || type === "removed" || base.stateAt(path) !== undefined) return false;
    const python = /\/(python\d+\.\d+)(?:\/|$)/.exec(path)?.[1];
    if (python !== undefined && !pythons.has(python)) return false;
    return node === NODE || !/\/lib\/node_modules\//.test(path);
  };
  for (const entry of entries) {
    const { path, type } = entry;
    const directory = parentPath(path);
    const hasParent = directory === "" || keptEntries.has(directory) || base.hasDirectory(directory);
    const isThere = type !== "hardlink" || keptEntries.has(entry.target);
    if (isKept(entry) && hasParent && isThere) keptEntries.set(path, entry);
    else if (type !== "directory" && type !== "removed") dropped.add(nameOf(path));
  }
  // If packages were dropped, reports their names instead of the names of their files.
  const packages = [...dropped].filter((name) => name.startsWith("apt: "));
  const others = [...dropped].filter(
    (name) => name.startsWith("/") && (packages.length === 0 || !isOfPackages(name)),
  );
  return { entries: [...keptEntries.values()], dropped: [...packages, ...others.sort()] };
}

function nameOf(path: string): string {
  const name = PACKAGE.exec(path)?.[1];
  return name === undefined
    ? `/${kindOf(path) === "system" ? path : (unitOf(path) ?? path)}`
    : `apt: ${name}`;
}

function isOfPackages(name: string): boolean {
  return /^\/(?:bin|lib\w*|sbin|usr|var)\//.test(name) && kindOf(name.slice(1)) === "system";
}
