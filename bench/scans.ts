/**
 * Measures the processor time of sandboxd's scans for changed files: `npx node bench/scans.ts [files]`. Scans as many files as
 * the image has, and changes one before each scan.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { Base, listBase } from "../container/sandboxd/snapshots/base.ts";
import { Scanner } from "../container/sandboxd/snapshots/scan.ts";
import { quantile } from "./measure.ts";

/** The number of files, by default about as many as the image has. There are a tenth as many directories. */
const files = Number(process.argv[2] ?? 90_000);
/** The server's intervals for a sandbox that changes all the time: between two saves, and between two scans of all files. */
const [SAVE_SECONDS, THOROUGH_SECONDS] = [2, 120];

const root = mkdtempSync(join(tmpdir(), "sandbox-mcp-scans-"));
try {
  for (let n = 0; n < files / 10; n++) {
    const directory = join(root, `usr/lib/${n % 100}/${n}`);
    mkdirSync(directory, { recursive: true });
    for (let file = 0; file < 10; file++) writeFileSync(join(directory, `${file}`), "");
  }
  for (const name of ["etc", "workspace"]) mkdirSync(join(root, name));
  const base = new Base(listBase(root));
  const scanner = new Scanner(root, () => base);
  const scanMs = async (isThorough: boolean) => {
    writeFileSync(join(root, "workspace/file"), `${performance.now()}`);
    const before = process.cpuUsage();
    await scanner.changes(new AbortController().signal, { isThorough });
    const { user, system } = process.cpuUsage(before);
    return (user + system) / 1000;
  };
  const median = async (isThorough: boolean) => {
    const all: number[] = [];
    for (let n = 0; n < 20; n++) all.push(await scanMs(isThorough));
    return quantile(all, 0.5);
  };
  const thorough = await median(true);
  // A scan remembers only the directories that did not change in the tenth of a second before it. So the program waits, and then
  // makes a scan that remembers all of them.
  await pause(1000);
  await scanMs(false);
  const usual = await median(false);
  const share = usual / (SAVE_SECONDS * 1000) + thorough / (THOROUGH_SECONDS * 1000);
  console.log(
    `${files} files: ${usual.toFixed(0)} ms for a scan, ${thorough.toFixed(0)} ms for a scan of all files; ${(share * 100).toFixed(1)} % of a processor while the sandbox changes all the time`,
  );
} finally {
  rmSync(root, { recursive: true, force: true });
}
