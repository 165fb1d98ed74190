/**
 * Runs the runtime's tests, or the given files of them, against the image of production, which must behave like the local platform. Needs Docker, or
 * SANDBOX_RUNTIME_URL (`ws://host:port/rpc`) of a container that runs already. That container must have the package's
 * container/kernel and the directory SANDBOX_RUNTIME_SHARED under the same paths as this machine. It must also share this
 * machine's process ids, because the tests of kernels read files and send signals.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { root } from "../cli/program-files.ts";

const given = process.env.SANDBOX_RUNTIME_URL;
process.exitCode =
  given === undefined
    ? await withContainer(test)
    : test(given, process.env.SANDBOX_RUNTIME_SHARED ?? tmpdir());

function test(url: string, shared: string): number {
  const vitest = join(root, "node_modules/vitest/vitest.mjs");
  const env = { ...process.env, SANDBOX_RUNTIME_URL: url, SANDBOX_RUNTIME_SHARED: shared };
  const options = { cwd: root, env, stdio: "inherit" } as const;
  const files = process.argv.slice(2);
  return spawnSync(process.execPath, [vitest, "run", "--project", "runtime", ...files], options).status ?? 1;
}

function docker(...args: string[]): string {
  return execFileSync("docker", args, { encoding: "utf8" }).trim();
}

/** Starts a container and calls `use` with the URL of its control server and the directory that it shares. */
async function withContainer(use: (url: string, shared: string) => number): Promise<number> {
  const dockerfile = readFileSync(new URL("../Dockerfile", import.meta.url), "utf8");
  const image = /^FROM (\S+)/m.exec(dockerfile)?.[1];
  if (image === undefined) throw new Error("The Dockerfile names no image.");
  const shared = mkdtempSync(join(tmpdir(), "runtime-docker-"));
  const kernel = join(root, "container/kernel");
  const mounts = ["--volume", `${shared}:${shared}`, "--volume", `${kernel}:${kernel}:ro`];
  const options = ["--detach", "--rm", "--pid", "host", "--publish", "127.0.0.1::3000", ...mounts];
  const container = docker("run", ...options, image);
  try {
    const address = docker("port", container, "3000/tcp").split("\n")[0] ?? "";
    await waitUntilServing(`http://${address}/`);
    return use(`ws://${address}/rpc`, shared);
  } finally {
    docker("rm", "--force", container);
    rmSync(shared, { recursive: true, force: true, maxRetries: 1 });
  }
}

async function waitUntilServing(url: string): Promise<void> {
  for (let attempt = 0; attempt < 300; attempt++) {
    const ready = await fetch(url).then(
      (response) => response.ok,
      () => false,
    );
    if (ready) return;
    await pause(100);
  }
  throw new Error(`Nothing responds at ${url}.`);
}
