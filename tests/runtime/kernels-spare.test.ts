/** The kernel that the control server starts before a call needs it. */
import { existsSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { endLater } from "../setup/end-later.ts";
import { until } from "../setup/until.ts";
import { sharedDirectory } from "./kernel-harness.ts";
import { REMOTE_URL, startRuntime } from "./runtime.ts";

describe.skipIf(REMOTE_URL)("a spare kernel", () => {
  it("that hangs at its start does not delay a call", async () => {
    const directory = sharedDirectory();
    const customize = join(directory, "sitecustomize.py");
    const listStarted = () => readdirSync(directory).filter((name) => name.startsWith("started-"));
    // Python imports this module when it starts.
    writeFileSync(
      customize,
      [
        "import os, time",
        `open(f'${directory}/started-{os.getpid()}', 'w').close()`,
        `while os.path.exists('${directory}/hold'): time.sleep(0.01)`,
      ].join("\n"),
    );
    const { api } = endLater(await startRuntime(["/usr/bin/env", `PYTHONPATH=${directory}`]));
    // The control server starts a spare kernel after the second context.
    for (let made = 0; made < 2; made++) await api.interpreter.createCodeContext({ language: "python" });
    const first = listStarted();
    expect(first).toHaveLength(2);
    writeFileSync(join(directory, "hold"), "");
    const spare = await until(() => listStarted().find((name) => !first.includes(name)));
    rmSync(customize);
    const { id } = await api.interpreter.createCodeContext({ language: "python" });
    // The server kills a kernel that hangs, but only later. The call must work before that.
    expect(existsSync(`/proc/${spare.replace("started-", "")}`)).toBe(true);
    let printed = "";
    await api.interpreter.runCodeStream(id, "print('ran')", undefined, {
      onStdout: ({ text }) => void (printed += text),
    });
    expect(printed.trim()).toBe("ran");
  });
});

it.skipIf(REMOTE_URL)(
  "a kernel starts although code prints a line that looks like its report, with any packages",
  async () => {
    const directory = sharedDirectory();
    const report = JSON.stringify({ ready: true, packages: [{ toString: 1, valueOf: 1 }] });
    writeFileSync(join(directory, "sitecustomize.py"), `print('${report}')\n`);
    const { api } = endLater(await startRuntime(["/usr/bin/env", `PYTHONPATH=${directory}`]));
    expect(await api.interpreter.createCodeContext({ language: "python" })).toMatchObject({
      language: "python",
    });
  },
);
