/**
 * The platform sends SIGTERM long before it ends a container: the server saves the workspace, and commands get
 * SIGTERM.
 */
import { beforeAll, describe, expect, it } from "vitest";
import { idIn } from "../setup/mcp-client.ts";
import { until } from "../setup/until.ts";
import { type FaultServer, startFaultServer } from "./support.ts";

let server: FaultServer;
beforeAll(async () => {
  server = await startFaultServer();
  return () => server.close();
});

const state = async (name: string) => {
  const { structured } = await server.call("list_sandboxes");
  const listed = structured.sandboxes as { name: string; state: string }[];
  return listed.find((one) => one.name === name)?.state;
};

describe.concurrent("when the platform or code ends a sandbox's container or sandboxd", () => {
  it("the server saves a file that was written just before the end", async () => {
    const sandbox = "written";
    await server.sh("true", { sandbox });
    const first = await server.firstPID(sandbox);
    await server.call("write_file", { sandbox, path: "last", content: "acknowledged" });
    process.kill(first, "SIGTERM");
    await until(async () => (await state(sandbox)) === "stopped");
    const next = await server.call("run_command", { sandbox, command: "cat last" });
    expect(next.structured.stdout).toBe("acknowledged");
    expect(next.text).toContain("The platform replaced the sandbox's container");
  });

  it.each([
    ["without sandboxd's token", ""],
    ["with sandboxd's token", '-H "x-sandboxd-token: $(cat /run/sandbox/token)"'],
  ])("the server refuses a forged report of the container's end: %s", async (_, token) => {
    const sandbox = "lied";
    const report = `curl -s -o /dev/null -w '%{http_code}' ${token} -X POST http://sandbox-mcp.internal/ending`;
    expect(await server.sh(report, { sandbox })).toBe("404");
    expect((await server.call("run_code", { sandbox, code: "6 * 7" })).text).toContain("42");
  });

  it("the sandbox works again after its code killed sandboxd", async () => {
    const sandbox = "ended-alone";
    const code = (text: string) => server.call("run_code", { sandbox, code: text });
    const interrupted = await code(
      "import os, time\nfor pid in filter(str.isdigit, os.listdir('/proc')):\n  if open(f'/proc/{pid}/comm').read() == 'sbxd\\n': os.kill(int(pid), 12)\ntime.sleep(60)",
    );
    expect(interrupted.text).toMatch(/was stopped during its run.*is replacing/s);
    await until(async () => (await code("6 * 7")).text.includes("42"));
  });

  it("commands get SIGTERM, and the server saves the files that they then write", async () => {
    const sandbox = "told";
    const command = "trap 'echo told >told; exit 5' TERM; echo ready; while :; do sleep 0.1; done";
    const run = await server.call("run_command", { sandbox, command, wait_seconds: 0 });
    await until(async () =>
      (await server.call("get_result", { id: idIn(run), wait_seconds: 0 })).text.includes("ready"),
    );
    process.kill(await server.firstPID(sandbox), "SIGTERM");
    await until(async () => (await state(sandbox)) === "stopped");
    expect((await server.call("get_result", { id: idIn(run) })).structured).toMatchObject({ exit_code: 5 });
    expect(await server.sh("cat told", { sandbox })).toBe("told\n");
  });

  it("the server saves the files of every completed run_code, and refuses code when it can no longer save files", async () => {
    const sandbox = "coded";
    const writeManyFiles =
      "for n in range(1500): open(f'/workspace/many{n}', 'wb').write(os.urandom(20_000))";
    await server.call("run_code", { sandbox, code: `import os\n${writeManyFiles}` });
    const first = await server.firstPID(sandbox);
    const code = (text: string, context: string) => server.call("run_code", { sandbox, code: text, context });
    const endless = code(
      "import time\nopen('/tmp/begun', 'w').close()\nwhile True: time.sleep(0.01)",
      "endless",
    );
    await server.sh("until [ -e /tmp/begun ]; do sleep 0.05; done", { sandbox });
    process.kill(first, "SIGTERM");
    const answered: number[] = [];
    let refused: string | undefined;
    for (let n = 0; (await state(sandbox)) !== "stopped"; n++) {
      const { structured, text } = await code(`open("/workspace/c${n}", "w").close()`, "default");
      if (structured.state === "succeeded") answered.push(n);
      else refused ??= text;
      // This call ran in the next container.
      if (/replaced the sandbox/.test(text)) break;
    }
    expect(refused).toMatch(/was (not run|stopped).*is replacing/s);
    expect((await endless).text).toMatch(/was stopped during its run.*is replacing/s);
    const files = (await server.sh("ls", { sandbox })).split("\n");
    expect(files).toEqual(expect.arrayContaining(answered.map((n) => `c${n}`)));
  });

  it("the server starts nothing new while the container ends, and its error says that the platform replaces the container", async () => {
    const sandbox = "late";
    // Ignores SIGTERM, so that the container ends slowly.
    await server.call("run_command", { sandbox, command: "trap '' TERM; sleep 60", wait_seconds: 0 });
    process.kill(await server.firstPID(sandbox), "SIGTERM");
    const refused = await until(async () => {
      const { text } = await server.call("run_command", { sandbox, session: "b", command: "echo ran" });
      return text.includes("replac") && text;
    });
    expect(refused).toMatch(/[Tt]he platform (is replacing|replaced)/);
    await until(
      async () =>
        (await server.call("run_command", { sandbox, command: "echo ran" })).structured.stdout === "ran\n",
    );
  });
});
