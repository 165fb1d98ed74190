/** `npm run dev:docker` with wrangler and the Worker, but without Docker and containers. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, it } from "vitest";
import { freePort } from "../../cli/lock.ts";
import { SAVING } from "../../cli/texts.ts";
import { portsOf, tree } from "../setup/processes.ts";
import { repository } from "../setup/server.ts";
import { until } from "../setup/until.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

it("npm run dev:docker hides the stored data from requests without a token and from other users, opens no debugger, saves all workspaces when it is stopped, and then ends with its interceptors", async () => {
  const directory = temporaryDirectory();
  // A stub of Docker that always succeeds. A build reads its Dockerfile from the standard input. The second interceptor is left over.
  const names = ["1", "1-proxy", "2-proxy"].map((name) => `workerd-sandbox-mcp-Sandbox-${name}`);
  const stub = `#!/bin/sh
echo "$*" >>${directory}/calls
case "$*" in
  build*) cat >/dev/null ;;
  *name=*) printf '%s\\n' ${names.join(" ")} ;;
esac
`;
  writeFileSync(join(directory, "docker"), stub, { mode: 0o755 });
  // `npm run dev:docker` creates this file with a token, if it is missing.
  const variables = join(repository, ".dev.vars");
  const hadVariables = existsSync(variables);
  const port = String(await freePort(0));
  const child = spawn(process.execPath, [join(repository, "cli/dev-docker.ts")], {
    env: {
      ...process.env,
      PATH: `${directory}:${dirname(process.execPath)}:${process.env.PATH}`,
      PORT: port,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const exited = once(child, "exit");
  let printed = "";
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (chunk: Buffer) => (printed += chunk.toString()));
  try {
    await until(() => printed.includes(`http://127.0.0.1:${port}/mcp`), 120_000);
    const explorer = await fetch(`http://127.0.0.1:${port}/cdn-cgi/local/explorer/api/r2/buckets`);
    expect(explorer.status).toBe(404);
    expect(statSync(join(repository, ".wrangler")).mode & 0o077).toBe(0);
    expect(readFileSync(join(directory, "calls"), "utf8")).toMatch(/^build /m);
    const ports = tree(child.pid ?? 0).flatMap(({ pid }) => portsOf(pid));
    expect(ports).toContain(Number(port));
    for (const each of ports) {
      const debuggers = await fetch(`http://127.0.0.1:${each}/json/list`).catch(() => undefined);
      expect(debuggers?.status).not.toBe(200);
    }
    // One Ctrl-C, or a terminal that closes: the terminal, npm and others each send a signal. Two of the same kind could become one.
    child.kill("SIGHUP");
    child.kill("SIGINT");
    child.kill("SIGTERM");
    await exited;
    expect(printed).toContain("POST /local/stop 200 OK");
    expect(printed).not.toContain(SAVING.aborted);
    expect(readFileSync(join(directory, "calls"), "utf8")).toMatch(
      /^rm --force workerd-sandbox-mcp-Sandbox-2-proxy$/m,
    );
    await expect(fetch(`http://127.0.0.1:${port}/health`)).rejects.toThrow();
  } finally {
    child.kill("SIGTERM");
    if (!hadVariables) rmSync(variables, { force: true });
  }
});
