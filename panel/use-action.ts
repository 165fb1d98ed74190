/** An action of a person on the page: whether it is under way, and its error. */
import { useState } from "preact/hooks";
import { showError } from "./tools.ts";

export function useAction() {
  const [problem, setProblem] = useState<string>();
  const [isBusy, setBusy] = useState(false);
  const act = async (work: () => unknown) => {
    setBusy(true);
    setProblem(undefined);
    try {
      await work();
    } catch (error) {
      showError(error, setProblem);
    } finally {
      setBusy(false);
    }
  };
  return { problem, isBusy, act };
}
