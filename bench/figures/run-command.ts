import type { Figure } from "../figure.ts";
import { interleave, latencyRows } from "../measure.ts";

/** The shortest command in an existing shell session. */
export const runCommand: Figure = {
  name: "run_command",
  baseline: "a minimal Node server in the same sandbox, which starts bash -c true",
  async measure({ ours, bare }, { count }) {
    const sandbox = "bench-command";
    await bare.serve(sandbox);
    const times = await interleave(
      () => ours.tool("run_command", { sandbox, command: "true" }),
      () => bare.call({ sandbox, method: "command", command: "true" }),
      { pairs: count(1000), warmup: count(100) },
    );
    return latencyRows("run_command true", times);
  },
};
