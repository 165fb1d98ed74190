/**
 * The machine's ids for a sandbox's users and groups. If root starts the server, each sandbox has 65,536 ids of its own. Its
 * programs can then switch users and change the owners of files, and no process or file belongs to two sandboxes.
 */
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { MACHINE } from "./texts.ts";

/** How many ids a sandbox has. Images and packages use ids up to 65534 (`nobody`). */
export const idsPerSandbox = 65_536;
/** The first id that systemd and distributions leave to the administrator. The last one is 2,147,352,575 (systemd.io/UIDS-GIDS). */
const firstOfAll = 0x7000_0000;
const rangeCount = (0x7ffe_0000 - firstOfAll) / idsPerSandbox;
/** An unprivileged id, for trial runs. */
export const idOfNobody = firstOfAll + (rangeCount - 1) * idsPerSandbox;

export interface IDRange {
  /** Sandbox id n is `first + n` on the machine. */
  first: number;
  release(): void;
}

export async function claimIDs(): Promise<IDRange> {
  let index = Math.floor(Math.random() * rangeCount);
  for (let attempt = 0; attempt < rangeCount; attempt += 1, index = (index + 1) % rangeCount) {
    const claim = await claimRange(index);
    if (claim !== undefined)
      return { first: firstOfAll + index * idsPerSandbox, release: () => void claim.close() };
  }
  throw new Error(MACHINE.noIDs);
}

/** Claims a range by listening on an abstract socket: only one process at a time can listen on its name. */
async function claimRange(index: number): Promise<Server | undefined> {
  const server = createServer((socket) => socket.destroy());
  server.listen({ path: `\0sandbox-mcp-ids-${index}`, exclusive: true }).unref();
  return await once(server, "listening").then(
    () => server,
    () => undefined,
  );
}

export interface IDMap {
  /** The machine's user that is root in the sandbox. */
  root: HostUser;
  /** Sandbox id n, from 1 on, is `first + n` on the machine. */
  first: number;
  count: number;
}

export async function writeMaps(pid: number, { root, first, count }: IDMap): Promise<void> {
  const others = count === 1 ? "" : `1 ${first + 1} ${count - 1}\n`;
  await writeFile(`/proc/${pid}/uid_map`, `0 ${root.uid} 1\n${others}`);
  await writeFile(`/proc/${pid}/gid_map`, `0 ${root.gid} 1\n${others}`);
}

export interface HostUser {
  uid: number;
  gid: number;
}
