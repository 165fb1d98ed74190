/** `npm run dev:docker` with wrangler and the Worker, but without Docker and containers. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { expect, it } from "vitest";
import { repository } from "../setup/server.ts";
import { until } from "../setup/until.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import { listen } from "../setup/listen.ts";

it("npm run dev:docker hides the stored data from requests without a token and from other users, saves all workspaces on Ctrl-C, and then ends", async () => {
  const directory = temporaryDirectory();
  // A stub of Docker that always succeeds.
  writeFileSync(join(directory, "docker"), "#!/bin/sh\n", { mode: 0o755 });
  // `npm run dev:docker` creates this file with a token, if it is missing.
  const variables = join(repository, ".dev.vars");
  const hadVariables = existsSync(variables);
  const free = createServer();
  const port = String(await listen(free));
  free.close();
  const child = spawn(
    process.execPath,
    [join(repository, "cli/dev-docker.ts"), "--enable-containers=false"],
    {
      env: {
        ...process.env,
        PATH: `${directory}:${dirname(process.execPath)}:${process.env.PATH}`,
        PORT: port,
      },
      stdio: ["ignore", "pipe", "pipe"],
    },
  );
  const exited = once(child, "exit");
  let printed = "";
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (chunk: Buffer) => (printed += chunk.toString()));
  try {
    await until(() => printed.includes(`http://127.0.0.1:${port}/mcp`), 120_000);
    const explorer = await fetch(`http://127.0.0.1:${port}/cdn-cgi/local/explorer/api/r2/buckets`);
    expect(explorer.status).toBe(404);
    expect(statSync(join(repository, ".wrangler")).mode & 0o077).toBe(0);
    child.kill("SIGINT");
    await exited;
    expect(printed).toContain("POST /local/stop 200 OK");
    await expect(fetch(`http://127.0.0.1:${port}/health`)).rejects.toThrow();
  } finally {
    child.kill("SIGTERM");
    if (!hadVariables) rmSync(variables, { force: true });
  }
});
