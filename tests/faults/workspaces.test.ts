/** The files of the next container after the server ended while a workspace changed. */
import { beforeAll, describe, expect, it } from "vitest";
import { startFloodablePreview } from "../setup/tiny-pieces.ts";
import { sleep, until } from "../setup/until.ts";
import { type FaultServer, startFaultServer } from "./support.ts";

let server: FaultServer;
beforeAll(async () => {
  server = await startFaultServer();
  return () => server.close();
});

/** The time of the sandbox's last save. */
async function savedAt(name: string): Promise<number> {
  const { structured } = await server.call("list_sandboxes");
  const listed = structured.sandboxes as { name: string; saved_at?: string }[];
  return Date.parse(listed.find((one) => one.name === name)?.saved_at ?? "") || 0;
}

// Each test ends the server, and all except the last start it again.
describe("when the server ends while a workspace changes", () => {
  it("everything up to the last save is restored after kill -9, and the next result gives the time of that save", async () => {
    await server.sh(
      "mkdir -p src; for i in {1..500}; do echo $i > src/$i; done; head -c 3000000 /dev/urandom > data; sha256sum data > sum",
    );
    const changed = Date.now();
    await until(async () => (await savedAt("default")) > changed);
    process.kill(server.pid("start"), "SIGKILL");
    await server.restart();
    const next = await server.call("run_command", { command: "sha256sum -c sum; cat src/* | wc -l" });
    expect(next.structured.stdout).toBe("data: OK\n500\n");
    expect(next.text).toMatch(/The sandbox was restarted: its files are as saved at 20/);
  });

  it("nothing is missing after SIGTERM, not even the latest change, while visitors and sandboxes flood previews", async () => {
    await server.sh("head -c 20000000 /dev/urandom >large");
    const floods = ["one", "two"].map(async (sandbox) => {
      const flood = await startFloodablePreview((name, args) => server.call(name, { sandbox, ...args }));
      void Promise.all([flood(["/in", 60, "messages", 25]), flood(["/out", 60, "messages", 25])]);
    });
    await Promise.all([...floods, server.sh("true", { sandbox: "other" })]);
    await sleep(1000);
    await server.call("write_file", { path: "young", content: "a moment old" });
    await server.call("write_file", { sandbox: "other", path: "young", content: "another" });
    server.server.child.kill("SIGTERM");
    await server.restart();
    expect(await server.sh("cat young")).toBe("a moment old");
    const other = await server.call("read_file", { sandbox: "other", path: "young" });
    expect(other.text).toContain("The sandbox was stopped together with the server: its files are as saved");
    expect(other.text).toContain("another");
  });

  it("the log warns that workspaces were perhaps not saved if the Worker does not respond after SIGTERM", async () => {
    await server.call("write_file", { path: "young", content: "a moment old" });
    process.kill(server.pid("workerd"), "SIGSTOP");
    process.kill(server.pid("start"), "SIGTERM");
    const words = "workspaces of 2 running sandboxes may be unsaved. Their previous saves are intact.";
    const stderr = await until(() => server.server.stderr().includes(words) && server.server.stderr());
    expect(stderr).toContain(words);
  });
});
