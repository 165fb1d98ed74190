/**
 * vitest's globalSetup: a model for tests of tasks in workerd, where tests cannot listen on a port. The task's
 * text selects a scenario, for example "[[write]] ...".
 */
import type { TestProject } from "vitest/node";
import { bash, playScenarios, say, use, writeProgram } from "./scripted-agent.ts";

declare module "vitest" {
  interface ProvidedContext {
    modelURL: string;
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  let busy = 0;
  const model = await playScenarios({
    write: [use("Write", { file_path: "/workspace/a.txt", content: "written\n" }), say("It is written.")],
    // Continues when the test creates a file.
    work: [
      bash("echo begun > /workspace/begun; while [ ! -e /workspace/go-on ]; do sleep 0.1; done"),
      bash("echo second step"),
      say("Worked through."),
    ],
    // Begins a response that ends only when the client disconnects.
    silent: [{ blocks: [{ type: "text", text: "" }], silentAfter: 1 }],
    // Never begins a response.
    hang: ["hang"],
    // Reports the parts of its request that come from definitions, and the definitions in the home directory.
    defined: (request, turn) =>
      turn === 0
        ? bash("grep -Roh 'DEFINED-[A-Z]*' ~/.claude/agents ~/.claude/commands 2>/dev/null | sort")
        : say([...new Set(JSON.stringify(request).match(/DEFINED-[A-Z]+(?: \d+)?/g))].join()),
    variables: [bash('echo "$FOR_TASKS" > /workspace/variables'), say("Written.")],
    wait: [bash("echo begun > /workspace/begun; sleep 300"), say("not reached")],
    big: [
      bash(
        "head -c 3000000 /dev/urandom > big.bin; mkdir -p node_modules/x && head -c 2000000 /dev/urandom > node_modules/x/y; echo small > small.txt",
      ),
      say("Made files."),
    ],
    images: [
      bash(
        `python3 -c 'from PIL import Image; [Image.new("RGB", size).save(f"{size[0]}.png") for size in ((3, 2), (2000, 1500))]'`,
      ),
      say("Made images."),
    ],
    many: [
      bash(
        "touch old; for n in $(seq -w 120); do echo $n > file-$n; done; ln -s file-001 link; echo latin > $'caf\\xe9.txt'; echo ř > ř.txt",
      ),
      say("Made many."),
    ],
    attributes: [
      bash(
        "printf 'changed\\n' > hidden.py; printf '$Id: changed $\\n' > hidden.sh; printf 'same\\r\\n' > hidden.c",
      ),
      say("Changed files."),
    ],
    // Paths of 4,000 bytes that are not UTF-8.
    deep: [
      bash(
        String.raw`python3 -c 'import os; d = b"/".join([b"\xff" * 250] * 15); os.makedirs(d); [open(d + b"/%d" % n, "w") for n in range(500)]'`,
      ),
      say("Made deep ones."),
    ],
    "long-error": [{ status: 400, error: { type: "invalid_request_error", message: "x".repeat(1_000_000) } }],
    fail: [
      {
        status: 400,
        error: { type: "invalid_request_error", message: "no such model" },
        headers: { "x-should-retry": "false" },
      },
    ],
    // For questions.
    product: [writeProgram("answer = 6 * 7\nprint(answer)")],
    much: [writeProgram("print('x' * 200_000)")],
    typed: [writeProgram("const answer: number = 6 * 7;\nconsole.log(answer);", "typescript")],
    picture: [writeProgram("from PIL import Image\nprint('drawn')\nImage.new('RGB', (2, 2))")],
    raise: [writeProgram("print('before')\nraise ValueError('no such thing')")],
    read: [writeProgram("print(open('data.csv').read())")],
    // Continues until a file exists.
    long: [
      writeProgram(
        "import os, time\nprint('begun', flush=True)\nwhile not os.path.exists('go-on'): time.sleep(0.05)\nprint('ended')",
      ),
    ],
    blank: [writeProgram("  ")],
    "no-code": [use("write_program", { language: "python" })],
    cut: [{ ...writeProgram("print(1)"), cutAfter: 3, delayMs: 20 }],
    decline: [say("I would rather not.")],
    refused: [{ blocks: [], stopReason: "refusal" }],
    endless: [{ ...writeProgram("print(1)"), stopReason: "max_tokens" }],
    denied: [{ status: 401, error: { type: "authentication_error", message: "invalid x-api-key" } }],
    // Refuses the first request of each question as overloaded.
    busy: () =>
      busy++ % 2 === 0
        ? {
            status: 529,
            error: { type: "overloaded_error", message: "Overloaded" },
            headers: { "retry-after": "0" },
          }
        : writeProgram("print('at last')"),
    overloaded: [
      {
        status: 529,
        error: { type: "overloaded_error", message: "Overloaded" },
        headers: { "retry-after": "0" },
      },
    ],
  });
  project.provide("modelURL", model.url);
  return () => model.close();
}
