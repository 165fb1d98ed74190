/** Keeps sandboxd running beside this program, as the image's entrypoint does. */
import { spawn } from "node:child_process";
import { log } from "./log.ts";

/** The pause before sandboxd is started again after it has ended, milliseconds. */
const PAUSE_MS = 50;

/** @param socket where it listens */
export function keepSandboxd(file: string, socket: string, env: NodeJS.ProcessEnv): void {
  const start = () => {
    const child = spawn(process.execPath, [file, "--socket", socket], {
      cwd: "/",
      detached: true,
      env,
      argv0: "sandboxd",
      stdio: ["ignore", "ignore", "inherit"],
    });
    const again = () => setTimeout(start, PAUSE_MS);
    child.once("error", (error) => (log(`sandboxd: ${error.message}`), again()));
    child.once("exit", again);
  };
  start();
}
