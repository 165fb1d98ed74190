import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { findDisks, findGroupParents } from "../../local/engine/limits.ts";
import { repository } from "../../local/engine/own-files.ts";
import { endLater } from "../setup/end-later.ts";
import { startTestEngine, TestSandbox } from "../setup/engine-client.ts";

const MiB = 1024 * 1024;
const limits = { diskBytes: 64 * MiB, memoryBytes: 384 * MiB, processes: 100, openFiles: 512 };
const isDiskLimited =
  (await findGroupParents()).some(({ controllers }) => controllers.includes("io")) &&
  (await findDisks()).length > 0;

describe("a sandbox's access to the machine's disk", () => {
  let shown: string;
  /** Drops the file from the kernel's cache. */
  const forget = () =>
    execFileSync("dd", [`of=${shown}/file`, "count=0", "conv=notrunc,fdatasync", "oflag=nocache"], {
      stdio: "ignore",
    });
  const pagesInMemory = () =>
    Number(
      execFileSync("fincore", ["--noheadings", "--output", "PAGES", `${shown}/file`], { encoding: "utf8" }),
    );

  beforeAll(async () => {
    shown = await mkdtemp(join(repository, "node_modules/.shown-"));
    await chmod(shown, 0o755);
    await writeFile(join(shown, "file"), Buffer.alloc(16 * MiB, "x"));
    forget();
  });
  afterAll(async () => await rm(shown, { recursive: true }));

  /** Starts a sandbox that sees the file. */
  const startShowing = async (more = {}) => {
    const readOnly = [{ from: shown, to: "/opt/shown" }];
    return TestSandbox.start(endLater(await startTestEngine({ limits: { ...limits, ...more }, readOnly })));
  };

  it.runIf(isDiskLimited)("reads at a limited rate", async () => {
    const sandbox = await startShowing({ diskReadBytes: MiB });
    expect((await sandbox.run("timeout 4 dd if=/opt/shown/file of=/dev/null bs=1M")).exitCode).toBe(124);
  });

  it("cannot read ahead, use O_DIRECT or drop the cache of others", async () => {
    const sandbox = await startShowing();
    const all = readFileSync(join(shown, "file")).length / 4096;
    const attempts = [
      "import ctypes, fcntl, mmap, os, platform",
      "x = platform.machine() == 'x86_64'",
      "libc = ctypes.CDLL(None, use_errno=True)",
      "file = os.open('/opt/shown/file', os.O_RDONLY)",
      "try: os.open('/opt/shown/file', os.O_RDONLY | os.O_DIRECT)",
      "except OSError as error: print(error.strerror)",
      "try: fcntl.fcntl(file, fcntl.F_SETFL, os.O_DIRECT)",
      "except OSError as error: print(error.strerror)",
      "how = ctypes.create_string_buffer((os.O_RDONLY | os.O_DIRECT).to_bytes(24, 'little'))",
      "libc.syscall(437, -100, b'/opt/shown/file', how, 24); print(os.strerror(ctypes.get_errno()))",
      "libc.syscall(440, 0, None, 0, 3, 0); print(os.strerror(ctypes.get_errno()))",
      "def forget(): os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)",
      "def ahead():",
      "  os.posix_fadvise(file, 0, 0, os.POSIX_FADV_WILLNEED)",
      "  libc.syscall(ctypes.c_long(187 if x else 213), file, ctypes.c_long(0), ctypes.c_long(16 << 20))",
      "  mmap.mmap(file, 0, prot=mmap.PROT_READ).madvise(mmap.MADV_WILLNEED)",
    ].join("\n");
    const { stdout } = await sandbox.python([attempts, "forget()"]);
    const [refused, missing] = ["Invalid argument", "Function not implemented"];
    expect(stdout.split("\n")).toEqual([refused, refused, missing, missing]);
    // The machine may read a few pages for other processes.
    expect(pagesInMemory()).toBeGreaterThan(all / 2);
    forget();
    await sandbox.python([attempts, "ahead()"]);
    expect(pagesInMemory()).toBe(0);
  });
});

it("a sandbox's disk records each access to a file, so that saves notice writes through mappings", async () => {
  const sandbox = await TestSandbox.start(endLater(await startTestEngine({ limits })));
  const look = "cat file; stat -c %x file; sleep 0.1";
  const { stdout } = await sandbox.run(`echo x >/workspace/file; cd /workspace; ${look}; ${look}; ${look}`);
  expect(new Set(stdout.match(/:[0-9.]+/g)).size).toBeGreaterThanOrEqual(3);
});
