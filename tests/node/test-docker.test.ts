/** `npm run test:docker` against a control server that runs already, in place of the image. */
import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { doLater } from "../setup/end-later.ts";
import { npm, repository } from "../setup/server.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import { until } from "../setup/until.ts";

it("npm run test:docker uses only the shared directory, and skips tests that need a control server of their own", async () => {
  const shared = temporaryDirectory();
  const workspace = join(shared, "workspace");
  mkdirSync(workspace);
  const socket = join(shared, "control.sock");
  const find = ["-c", "import tqdm; print(tqdm.__path__[0])"];
  const tqdm = execFileSync("/usr/bin/python3", find, { encoding: "utf8" }).trim();
  // As with a container of the image, all other temporary files of this machine are missing there, and tqdm is.
  const missing = ["--tmpfs", "/tmp", "--tmpfs", tqdm];
  const present = ["--ro-bind", repository, repository, "--bind", shared, shared];
  const isolated = ["--dev-bind", "/", "/", ...missing, ...present, "--die-with-parent"];
  const program = join(repository, "local/runtime/main.ts");
  const places = ["--socket", socket, "--kernels", join(repository, "local/runtime/kernels")];
  const args = [...isolated, process.execPath, program, ...places, "--workspace", workspace];
  const server = spawn("bwrap", args, {
    env: { ...process.env, PATH: `/usr/bin:${process.env.PATH}` },
    stdio: ["ignore", "ignore", "inherit"],
  });
  doLater(() => server.kill("SIGKILL"));
  await until(() => existsSync(socket));
  const tests = npm(["run", "--silent", "test:docker", "--", "kernels-displays", "kernels-protocol"], {
    env: { SANDBOX_RUNTIME_URL: `ws+unix:${socket}:/rpc`, SANDBOX_RUNTIME_SHARED: shared },
  });
  expect(await tests.exited, tests.stdout() + tests.stderr()).toBe(0);
  expect(tests.stdout()).toMatch(/Tests .*\d{2} passed.*skipped/);
}, 240_000);
