/** The records of saved states, and the keys of their objects in R2. Times are milliseconds since the epoch. */
import type { NamedFiles } from "../../container/sandboxd/snapshots/snapshot-requests.ts";
import { shortened } from "../shared/text.ts";

/** The content that one save has added. A pack has the id of its save. */
export type Pack = {
  id: string;
  bytes: number;
  /** The bytes that the snapshot still uses. */
  live: number;
};

/**
 * How many files of each kind a saved state names, and how many characters of each path, because a path may have thousands. The
 * names of all states are in the account's database, and count in no quota.
 */
export const NAMED = 5;
const NAME_CHARS = 100;

export function firstNames(paths: readonly string[]): string[] {
  return paths.slice(0, NAMED).map((path) => shortened(path, NAME_CHARS));
}

export interface LeftOut {
  /** The number of files beyond the limit. `bytes` is their total size, and `names` has the largest of them. */
  count: number;
  bytes: number;
  names: string[];
  unreadable?: NamedFiles;
  /** Sockets, pipes and devices. */
  special?: NamedFiles;
  /** Regenerable directories with more files than a snapshot may have. */
  crowded?: NamedFiles;
}

/** Whether regular files are missing, which a set-up may have made. Sockets, pipes and devices do not count. */
export function lacksFiles(left: Pick<LeftOut, "count" | "unreadable" | "crowded"> | undefined): boolean {
  return (
    left !== undefined && (left.count > 0 || left.unreadable !== undefined || left.crowded !== undefined)
  );
}

export interface Snapshot {
  id: string;
  savedAt: number;
  files: number;
  bytes: number;
  manifestBytes: number;
  left?: LeftOut;
  packs: Pack[];
}

/** A save that will become its sandbox's current state, or an archive. */
export interface Save extends Omit<Snapshot, "savedAt"> {
  sandbox: string;
  /** The sandbox's state when the save began. */
  base: string | undefined;
  /** If set, the save becomes this archive, and the sandbox keeps its state. */
  archive?: Archive;
}

export interface Archive {
  /** The whole id of the task's run, or the key of the set-up. */
  run: string;
  part: "workspace" | "conversation";
  expiresAt: number;
  /** The sandbox's settings as JSON, for a sandbox that continues the task. */
  settings?: string | undefined;
}

export type Checkpoint = {
  id: string;
  sandbox: string;
  label: string;
  savedAt: number;
  files: number;
  bytes: number;
  expiresAt: number;
};

/** A sandbox's current state as listed. */
export type SavedWorkspace = {
  sandbox: string;
  createdAt: number;
  usedAt: number;
  savedAt: number;
  bytes: number;
};

export function workspacesPrefix(principalHash: string): string {
  return `${principalHash}/workspaces/`;
}

/** The key prefixes of a save's objects in R2, between the principal's prefix and a number of five digits. */
export function packPrefix(id: string): string {
  return `${id}/pack.`;
}

export function manifestPrefix(id: string): string {
  return `${id}/manifest.`;
}
