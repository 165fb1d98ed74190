/**
 * The ids of the machine that a sandbox's users and groups are. Where root starts the server, each sandbox has 65,536 of its own,
 * so that programs in it may change owners and users, and no process or file of one sandbox belongs to another.
 */
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:net";

/** The ids in a sandbox: what images and packages use, `nobody` (65534) among them. */
export const idsPerSandbox = 65_536;

/** Distributions and systemd leave these to the administrator: 1,879,048,192 to 2,147,352,575 (systemd.io/UIDS-GIDS). */
const firstOfAll = 0x7000_0000;
const slots = (0x7ffe_0000 - firstOfAll) / idsPerSandbox;

/** A user or group of the machine that no sandbox is, to try things as. */
export const idOfNobody = firstOfAll + (slots - 1) * idsPerSandbox;

export interface IDRange {
  /** The machine's id of a sandbox's id n is `first + n`. */
  first: number;
  /** Lets another sandbox have the range. To be called when nothing runs with it any more. */
  release(): void;
}

/** Claims ids that no sandbox on this machine has, of this server or another. */
export async function claimIDs(): Promise<IDRange> {
  let slot = Math.floor(Math.random() * slots);
  for (let attempt = 0; attempt < slots; attempt += 1, slot = (slot + 1) % slots) {
    const claim = await claimSlot(slot);
    if (claim !== undefined)
      return { first: firstOfAll + slot * idsPerSandbox, release: () => void claim.close() };
  }
  throw new Error("This machine cannot make a sandbox: all ids for sandboxes are in use.");
}

/** An abstract socket is a name that one process has, until it ends. Nothing is served there. */
async function claimSlot(slot: number): Promise<Server | undefined> {
  const server = createServer((socket) => socket.destroy());
  server.listen({ path: `\0sandbox-mcp-ids-${slot}`, exclusive: true }).unref();
  return await once(server, "listening").then(
    () => server,
    () => undefined,
  );
}

/** The ids of a user namespace (user_namespaces(7)). */
export interface IDMap {
  /** Who its root is on the machine. */
  root: HostUser;
  /** The machine's ids of its others are those after this one. */
  first: number;
  /** How many ids it has, from 0 on. */
  count: number;
}

/** Gives the user namespace of a process its ids. */
export async function writeMaps(pid: number, { root, first, count }: IDMap): Promise<void> {
  const others = count === 1 ? "" : `1 ${first + 1} ${count - 1}\n`;
  await writeFile(`/proc/${pid}/uid_map`, `0 ${root.uid} 1\n${others}`);
  await writeFile(`/proc/${pid}/gid_map`, `0 ${root.gid} 1\n${others}`);
}

/** A user of the machine. */
export interface HostUser {
  uid: number;
  gid: number;
}
