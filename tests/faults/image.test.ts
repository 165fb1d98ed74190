/**
 * sandboxd hangs in the image. The tests run the image's entrypoint in separate namespaces, with a stub of the
 * control server.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { bundleSandboxd } from "../../scripts/bundle-sandboxd.ts";
import { tree } from "../setup/processes.ts";
import { repository } from "../setup/server.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import { LONG } from "./support.ts";

const directory = temporaryDirectory();
const bundle = join(directory, "sandboxd.cjs");
/** The list of the image's files, which the build writes. Here it is empty, because it would contain the whole machine. */
const base = join(directory, "base.list");
beforeAll(async () => {
  writeFileSync(base, "");
  await bundleSandboxd(bundle);
});

/** The first lines of each stub: functions that inspect sandboxd. */
const HELPERS = `
import { execSync, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { sleep, until } from ${JSON.stringify(join(repository, "tests/setup/until.ts"))};
process.on("uncaughtException", (error) => (console.log(error), console.log("over")));
const run = (command) => execSync(command).toString().trim();
const sandboxd = () => { try { return run("pgrep -x sbxd"); } catch { return ""; } };
const greeting = async (ms = 1000) => {
  const signal = AbortSignal.timeout(ms);
  try { return await (await fetch("http://127.0.0.1:8671/", { signal })).text(); } catch { return ""; }
};
const untilItResponds = () => until(async () => (await greeting()) === "sandboxd\\n");
const status = async (token) => {
  const headers = token === undefined ? {} : { "x-sandboxd-token": token };
  try { return (await fetch("http://127.0.0.1:8671/", { headers })).status; } catch { return 0; }
};
const waitUntilGone = (pid) => until(() => !existsSync("/proc/" + pid));
await until(async () => (await status()) > 0);
const before = sandboxd();
`;

/**
 * Starts the entrypoint with this program as its server. Returns the program's output.
 * @param replaced files of this machine, by the path that they have in the image
 */
async function serve(
  program: string,
  variables: Record<string, string> = {},
  replaced: Record<string, string> = {},
): Promise<string> {
  const server = join(directory, `${Math.random()}.mjs`);
  writeFileSync(
    server,
    `${HELPERS}${program}\nconsole.log("over");
await sleep(2 ** 31 - 1);`,
  );
  const files = {
    "entrypoint.sh": join(repository, "container/entrypoint.sh"),
    environment: join(repository, "container/environment"),
    "init.pl": join(repository, "container/init.pl"),
    "base.list": base,
    "sandboxd/dist/sandboxd.cjs": bundle,
  };
  const mounts = Object.entries(files).flatMap(([to, from]) => ["--ro-bind", from, `/opt/sandbox-mcp/${to}`]);
  mounts.push(...Object.entries(replaced).flatMap(([to, from]) => ["--ro-bind", from, to]));
  const mountArgs = "--dev-bind / / --proc /proc --tmpfs /opt --tmpfs /var/lib";
  const isolationArgs = "--unshare-pid --unshare-net --die-with-parent --as-pid-1";
  const args = [
    ...`${mountArgs} ${isolationArgs}`.split(" "),
    ...mounts,
    "/opt/sandbox-mcp/entrypoint.sh",
    "node",
    server,
  ];
  const child = spawn("bwrap", args, {
    env: { PATH: `${dirname(process.execPath)}:/usr/bin:/bin`, SANDBOX_CGROUP: "/dev/null", ...variables },
    stdio: ["ignore", "pipe", "inherit"],
  });
  let printed = "";
  child.stdout.on("data", (chunk: Buffer) => {
    printed += chunk.toString();
    // The signal comes from outside the container, as the platform sends it.
    if (printed.endsWith("over\n"))
      for (const { pid, command } of tree(child.pid ?? 0))
        if (command === "sbx-init") process.kill(pid, "SIGTERM");
  });
  await once(child, "close");
  return printed.replace(/over\n$/, "");
}

describe.concurrent("when sandboxd ends or hangs in the image", () => {
  it("the first process restarts sandboxd if it was killed or stopped (SIGSTOP)", async () => {
    const printed = await serve(`
      process.kill(Number(before), "SIGKILL");
      await waitUntilGone(before);
      await untilItResponds();
      const second = sandboxd();
      process.kill(Number(second), "SIGSTOP");
      await waitUntilGone(second);
      await untilItResponds();
      console.log("responds");
    `);
    expect(printed).toBe("responds\n");
  });

  it("the first process restarts sandboxd if a command killed all programs by name", async () => {
    const printed = await serve(`
      const first = sandboxd();
      run("pkill -f sandbox[d]; pkill -f [/]opt; pkill -x tee; true");
      console.log(sandboxd() === first);
      run("pkill -KILL sbx; true");
      await waitUntilGone(first);
      await untilItResponds();
      console.log("responds");
    `);
    expect(printed).toBe("true\nresponds\n");
  });

  it("sandboxd accepts only requests with the start token, also after its restart", async () => {
    const printed = await serve(
      `
      console.log(await status(), await status("another"), await status("its own"));
      console.log(process.env.SANDBOXD_TOKEN);
      process.kill(Number(sandboxd()), "SIGKILL");
      await until(async () => (await status("its own")) === 200);
      console.log(await status());
    `,
      { SANDBOXD_TOKEN: "its own" },
    );
    expect(printed).toBe("401 401 200\nundefined\n401\n");
  });

  it("the first process restarts sandboxd if a program on its port accepts connections and never responds", async () => {
    const printed = await serve(`
      const silent = spawn(process.execPath, ["-e", \`
        const listenUntilDone = () => require("node:net").createServer(() => undefined)
          .listen(8671, "0.0.0.0", () => process.send("listens")).once("error", () => setTimeout(listenUntilDone, 1));
        listenUntilDone();
      \`], { stdio: ["ignore", "ignore", "ignore", "ipc"] });
      const listens = new Promise((resolve) => silent.once("message", resolve));
      const killed = new Promise((resolve) => silent.once("exit", (_code, signal) => resolve(signal)));
      while ((await Promise.race([listens, sleep(20)])) === undefined) {
        try { run("pkill -KILL -x sbxd"); } catch { }
      }
      console.log(await killed);
      await untilItResponds();
      console.log("responds");
    `);
    expect(printed).toBe("SIGKILL\nresponds\n");
  });

  it("the first process ends after SIGTERM although the server never confirms the save", async () => {
    const [init, hosts] = ["init.pl", "hosts"].map((name) => join(directory, name)) as [string, string];
    // In the image, the limit is 600 seconds.
    const given = readFileSync(join(repository, "container/init.pl"), "utf8");
    writeFileSync(init, given.replace(/(\(\$STOP_S, \$SERVER_STOP_S\) = )\(\d+, /, "$1(5, "));
    writeFileSync(hosts, "127.0.0.1 localhost sandbox-mcp.internal\n");
    const printed = await serve(
      `
      const { createServer } = await import("node:net");
      const silent = createServer(() => console.log("asked to save"));
      await new Promise((resolve) => silent.listen(80, "127.0.0.1", resolve));
    `,
      {},
      { "/opt/sandbox-mcp/init.pl": init, "/etc/hosts": hosts },
    );
    expect(printed).toBe("over\nasked to save\n");
  });

  it.runIf(LONG)("the first process does not restart sandboxd if it only lacks processor time", async () => {
    const printed = await serve(`
      run("taskset -a -p -c 0 " + before);
      run("chrt -a -i -p 0 " + before);
      const busy = Array.from({ length: 8 }, () => spawn("taskset", ["-c", "0", "/bin/sh", "-c", "while :; do :; done"]));
      let silentFor = 0;
      while (silentFor < 70) silentFor = (await greeting(5000)) === "" ? silentFor + 5 : 0;
      for (const child of busy) child.kill("SIGKILL");
      await untilItResponds();
      console.log(sandboxd() === before);
    `);
    expect(printed).toBe("true\n");
  });
});
