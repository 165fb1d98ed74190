/** `ctx.container` on the local platform, as the SDK uses it: the same actor, a real sandbox. */
import { env } from "cloudflare:workers";
import { afterAll, describe, expect, it } from "vitest";
import { evict, inActor, owner } from "./support.ts";

const used = new Set<string>();

function sandboxNamed(name: string): string {
  used.add(`platform-${name}`);
  return `platform-${name}`;
}

/** What a command prints. A sandbox that has just ended may interrupt the first call after it. */
async function output(sandbox: string, command: string): Promise<string> {
  for (let attempt = 0; ; attempt += 1) {
    const { structured, text } = await owner.call("run_command", { sandbox, command });
    if (/^(succeeded|failed)$/.test(String(structured.state)))
      return `${structured.stdout}${structured.stderr}`.trimEnd();
    if (attempt === 5) throw new Error(text);
  }
}

const isRunning = async (name: string) =>
  await inActor(name, (_sandbox, { container }) => container?.running);

afterAll(async () => {
  for (const sandbox of used) await owner.call("destroy_sandbox", { sandbox });
});

describe("a sandbox", () => {
  it("continues when a process inside signals its first process", async () => {
    const name = sandboxNamed("told");
    await output(name, "echo kept > /tmp/file");
    await output(name, "kill 1; sleep 3");
    expect(await output(name, "cat /tmp/file")).toBe("kept");
  });

  it("is known to have ended when the engine knows nothing of it", async () => {
    const name = sandboxNamed("unknown");
    await output(name, "true");
    await inActor(name, async (sandbox, state) => {
      const stored = state.storage.kv.get<object>("__local_container");
      await sandbox.destroy();
      state.storage.kv.put("__local_container", stored);
    });
    await evict(name);
    await expect.poll(async () => await isRunning(name)).toBe(false);
    expect(await output(name, "echo new")).toBe("new");
  });
});

describe("a port", () => {
  it("is fetched; redirects are not followed; a missing one fails with the SDK's message", async () => {
    const name = sandboxNamed("port");
    const server =
      "require('http').createServer((q, r) => r.writeHead(302, {location: 'http://127.0.0.1:1/'}).end('moved')).listen(8000)";
    await output(name, `node -e "${server}" >/dev/null 2>&1 &`);
    const fetchPort = async (port: number) =>
      await inActor(name, async (_sandbox, state) => {
        try {
          const response = await state.container?.getTcpPort(port).fetch("http://localhost/path", {});
          return `${response?.status} ${await response?.text()}`;
        } catch (error) {
          return String(error);
        }
      });
    await expect.poll(async () => await fetchPort(8000)).toBe("302 moved");
    expect(await fetchPort(8001)).toContain("the container is not listening");
  });
});

describe("outbound handlers", () => {
  it("without restrictions give a sandbox no access through the Worker", async () => {
    const engine = new URL(String(Reflect.get(env, "LOCAL_ENGINE_URL")));
    const name = sandboxNamed("pass");
    await output(name, "true");
    await inActor(name, async (sandbox) => await sandbox.setAllowedHosts(["127.0.0.1", "localhost"]));
    const answer = await output(
      name,
      `curl -sS --noproxy '' http://127.0.0.1:${engine.port}/boot; curl -sS http://example.test/`,
    );
    expect(answer).toContain("127.0.0.1 is a loopback address, which a sandbox may not reach");
    expect(answer).toContain("Origin is disallowed");
  });
});
