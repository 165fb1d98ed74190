import type { Figure } from "../figure.ts";
import { interleave, latencyRows } from "../measure.ts";

/** The shortest command in a shell session that is there. */
export const runCommand: Figure = {
  name: "run_command",
  baseline: "exec of the SDK of bash -c true, because our commands have a shell of their own each",
  async measure({ ours, bare }, { count }) {
    const sandbox = "bench-command";
    const times = await interleave(
      () => ours.tool("run_command", { sandbox, command: "true" }),
      () => bare.call({ sandbox, method: "exec", command: "bash -c true" }),
      { pairs: count(1000), warmup: count(100) },
    );
    return latencyRows("run_command true", times);
  },
};
