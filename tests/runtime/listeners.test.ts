/** The control server hands its listeners to the engine. */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { expect, it } from "vitest";
import { repository } from "../setup/server.ts";

/** Stands for the engine: keeps the first listener without accepting, and connects to it as an early sandboxd does. */
const ENGINE = `
const { fork } = require("node:child_process");
const { connect } = require("node:net");
const control = fork(${JSON.stringify(join(repository, "local/runtime/main.ts"))}, ["--kernels", "/nonexistent"]);
control.once("message", (_port, listener) => {
  // Node accepts connections also here.
  listener.close();
  connect(8671, "127.0.0.1").resume().on("close", () => {
    console.log("closed");
    control.kill("SIGKILL");
    process.exit();
  });
});
`;

it("closes a connection that arrives before the engine accepts connections, so that sandboxd connects again", () => {
  const isolated = [
    "--dev-bind",
    "/",
    "/",
    "--proc",
    "/proc",
    "--unshare-net",
    "--unshare-pid",
    "--die-with-parent",
  ];
  const printed = execFileSync("bwrap", [...isolated, process.execPath, "-e", ENGINE], { timeout: 30_000 });
  expect(String(printed)).toContain("closed");
});
