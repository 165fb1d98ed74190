/**
 * Runs the runtime's tests against the image that production uses: what the local platform does, the image has to do as
 * well. Needs Docker, or SANDBOX_RUNTIME_URL (`ws://host:port/rpc`) of a container that runs already.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));

const given = process.env.SANDBOX_RUNTIME_URL;
process.exitCode = given === undefined ? await withContainer(test) : test(given);

function test(url: string): number {
  const vitest = fileURLToPath(new URL("../node_modules/vitest/vitest.mjs", import.meta.url));
  const env = { ...process.env, SANDBOX_RUNTIME_URL: url };
  const options = { cwd: root, env, stdio: "inherit" } as const;
  return spawnSync(process.execPath, [vitest, "run", "--project", "runtime"], options).status ?? 1;
}

function docker(...args: string[]): string {
  return execFileSync("docker", args, { encoding: "utf8" }).trim();
}

/** Calls `use` with the control server's URL of a fresh container. */
async function withContainer(use: (url: string) => number): Promise<number> {
  const dockerfile = readFileSync(new URL("../Dockerfile", import.meta.url), "utf8");
  const image = /^FROM (\S+)/m.exec(dockerfile)?.[1];
  if (image === undefined) throw new Error("The Dockerfile names no image.");
  const container = docker("run", "--detach", "--rm", "--publish", "127.0.0.1::3000", image);
  try {
    const address = docker("port", container, "3000/tcp").split("\n")[0] ?? "";
    await answer(`http://${address}/`);
    return use(`ws://${address}/rpc`);
  } finally {
    docker("rm", "--force", container);
  }
}

async function answer(url: string): Promise<void> {
  for (let attempt = 0; attempt < 300; attempt++) {
    const ready = await fetch(url).then(
      (response) => response.ok,
      () => false,
    );
    if (ready) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`Nothing answers at ${url}.`);
}
