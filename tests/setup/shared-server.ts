/**
 * vitest's globalSetup for `e2e`: a server for all files that need no settings, because each start takes more than two seconds of
 * processor time. These files use sandboxes of their own names, and end nothing that they share.
 */
import type { TestProject } from "vitest/node";
import { bash, playScenarios, say, use, writeProgram } from "./scripted-agent.ts";
import { startServer } from "./server.ts";

/** HTML, and a character that reverses the direction of writing. */
export const HOSTILE_TEXT = "<img src=x onerror=alert(1)> \u202egnp.exe";

declare module "vitest" {
  interface ProvidedContext {
    server: {
      url: string;
      /** What it printed when it was ready. */
      stdout: string;
    };
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const model = await playScenarios({
    mend: [bash("sed -i 's/a - b/a + b/' sum.py && python3 test.py"), say("Mended the sum.")],
    product: [writeProgram("print(6 * 7)\n1 + 1")],
    done: [say("All is written.")],
    work: [
      use(
        "Write",
        { file_path: "/workspace/notes.txt", content: `one\n${HOSTILE_TEXT}\n` },
        "Write access is fine: I will write it.",
      ),
      bash("mkfifo /tmp/go; cat /tmp/go; ls no-such-file"),
      bash("head -c 3000 /dev/urandom > kept.bin; echo x > $'\\u202etxt.exe'; rm old.txt"),
      say(`All is written. ${HOSTILE_TEXT}`),
    ],
  });
  // All test files run at the same time, as one principal. The short idle time frees the memory of files that have ended.
  const limits = { MAX_SANDBOXES: "1000", MAX_CONCURRENT_RUNS: "1000", IDLE_STOP_MINUTES: "3" };
  // The server lists every tool only with a credential for a model.
  const credential = { ANTHROPIC_API_KEY: "any", ANTHROPIC_UPSTREAM_URL: model.url };
  const server = await startServer({ env: { ...limits, ...credential } });
  project.provide("server", { url: server.url, stdout: server.stdout() });
  return async () => {
    await server.stop();
    await model.close();
  };
}
