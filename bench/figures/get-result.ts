import type { Figure } from "../figure.ts";
import { interleave, latencyRows } from "../measure.ts";

/** The result of a run that has ended. The server reads it without a call to the sandbox. */
export const getResult: Figure = {
  name: "get_result",
  baseline: "a minimal Node server in the same sandbox, which runs the command again",
  async measure({ ours, bare }, { count }) {
    const sandbox = "bench-result";
    await bare.serve(sandbox);
    await ours.tool("run_command", { sandbox, command: "echo done" });
    const id = /^bench-result\.\w+/m.exec(await ours.tool("list_runs", { sandbox }))?.[0];
    const times = await interleave(
      () => ours.tool("get_result", { id }),
      () => bare.call({ sandbox, method: "command", command: "echo done" }),
      { pairs: count(400), warmup: count(100) },
    );
    return latencyRows("get_result", times);
  },
};
