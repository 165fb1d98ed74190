import type { Figure } from "../figure.ts";
import { interleave, latencyRows } from "../measure.ts";

const CODE = "1 + 1";

/** One call in a kernel that is already running. */
export const runCode: Figure = {
  name: "run_code",
  baseline: "runCode of the SDK in a context that exists already",
  async measure({ ours, bare }, { count }) {
    const sandbox = "bench-code";
    const context = String(await bare.call({ sandbox, method: "createCodeContext" }));
    const times = await interleave(
      () => ours.tool("run_code", { sandbox, code: CODE }),
      () => bare.call({ sandbox, method: "runCode", context, code: CODE }),
      { pairs: count(1000), warmup: count(200) },
    );
    return latencyRows("run_code warm", times);
  },
};
