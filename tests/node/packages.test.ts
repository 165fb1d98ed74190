/** A sandbox installs packages from the indexes that the host is configured for, and refuses packages of the system. */
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { beforeAll, describe, expect, it, vi } from "vitest";
import { hostRegistries, registryAddresses } from "../../local/engine/registries.ts";
import { connectUpstream } from "../../local/engine/upstream.ts";
import { upstreamTo } from "../setup/egress.ts";
import { doLater, endLater } from "../setup/end-later.ts";
import { startTestEngine, TestSandbox } from "../setup/engine-client.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import { listen } from "../setup/listen.ts";

const directory = temporaryDirectory();

/** Starts an engine with these environment variables, and returns one of its sandboxes. */
async function sandboxWith(variables: Record<string, string>): Promise<TestSandbox> {
  for (const [name, value] of Object.entries(variables)) vi.stubEnv(name, value);
  doLater(() => void vi.unstubAllEnvs());
  return await TestSandbox.start(endLater(await startTestEngine()));
}

describe("the indexes of the host", () => {
  it("come from the environment, or else from pip's files", async () => {
    const file = join(directory, "pip.conf");
    await writeFile(
      file,
      "# mine\n[global]\nindex-url = https://me:secret@mirror.test/simple\nextra_index_url =\n" +
        "    https://one.test/simple\n    https://key@two.test:8443/simple\n" +
        "[install]\ntrusted-host = mirror.test\n[list]\nindex-url = https://other.test\n",
    );
    const found = hostRegistries({
      PIP_CONFIG_FILE: file,
      HOME: directory,
      npm_config_userconfig: "/dev/null",
    });
    expect(found).toEqual({
      pip: "https://mirror.test/simple",
      pipExtra: ["https://one.test/simple", "https://two.test:8443/simple"],
      pipTrusted: ["mirror.test"],
    });
    expect([...registryAddresses(found)]).toEqual(["mirror.test:443", "one.test:443", "two.test:8443"]);
    const registries = hostRegistries({ PIP_CONFIG_FILE: file, PIP_INDEX_URL: "https://env.test/" });
    expect(registries.pip).toBe("https://env.test/");
  });

  it("may have a private address, but only their own ports can be reached there", async () => {
    const port = await listen(endLater(createServer((_request, response) => void response.end())));
    const registries = new Set([`mirror.test:${port}`, `localhost:${port}`]);
    const options = { ...upstreamTo(), registries, resolve: async () => ["127.0.0.1"] };
    (await connectUpstream("mirror.test", port, options)).destroy();
    await expect(connectUpstream("mirror.test", port + 1, options)).rejects.toThrow("loopback");
    await expect(connectUpstream("other.test", port, options)).rejects.toThrow("loopback");
    await expect(connectUpstream("localhost", port, options)).rejects.toThrow("loopback");
  });

  const ownAddress = Object.values(networkInterfaces())
    .flat()
    .find((address) => address?.family === "IPv4" && !address.internal);

  it.runIf(ownAddress !== undefined)("serve pip and npm in a sandbox", async () => {
    const wheel = join(directory, "tiny_thing-1.0-py3-none-any.whl");
    execFileSync("python3", [
      "-c",
      "import sys, zipfile\n" +
        "with zipfile.ZipFile(sys.argv[1], 'w') as z:\n" +
        " z.writestr('tiny_thing.py', 'answer = 42')\n" +
        " z.writestr('tiny_thing-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: tiny-thing\\nVersion: 1.0\\n')\n" +
        " z.writestr('tiny_thing-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n" +
        " z.writestr('tiny_thing-1.0.dist-info/RECORD', '')\n",
      wheel,
    ]);
    const packageDirectory = join(directory, "package");
    execFileSync("sh", [
      "-c",
      `mkdir -p ${packageDirectory} && cd ${directory} && echo '{"name":"tiny-thing","version":"1.0.0"}' >package/package.json` +
        " && echo 'module.exports = 42' >package/index.js && tar czf tiny.tgz package",
    ]);
    const receivedCredentials: string[] = [];
    const mirror = createServer((request, response) => {
      const { url = "", headers } = request;
      receivedCredentials.push(headers.authorization ?? "none");
      const base = `http://${headers.host}`;
      const dist = { tarball: `${base}/tiny.tgz` };
      if (url === "/simple/tiny-thing/") {
        response.setHeader("content-type", "text/html");
        response.end(`<a href="${base}/tiny_thing-1.0-py3-none-any.whl">tiny_thing-1.0-py3-none-any.whl</a>`);
      } else if (url === "/tiny_thing-1.0-py3-none-any.whl") response.end(readFileSync(wheel));
      else if (url === "/npm/tiny-thing") {
        const versions = { "1.0.0": { name: "tiny-thing", version: "1.0.0", dist } };
        response.setHeader("content-type", "application/json");
        response.end(JSON.stringify({ name: "tiny-thing", "dist-tags": { latest: "1.0.0" }, versions }));
      } else if (url === "/tiny.tgz") response.end(readFileSync(join(directory, "tiny.tgz")));
      else response.writeHead(404).end();
    }).listen(0, ownAddress?.address);
    await once(mirror, "listening");
    endLater(mirror);
    const host = `${ownAddress?.address}:${(mirror.address() as AddressInfo).port}`;
    const sandbox = await sandboxWith({
      PIP_INDEX_URL: `http://me:secret@${host}/simple/`,
      PIP_TRUSTED_HOST: ownAddress?.address ?? "",
      PIP_CONFIG_FILE: "/dev/null",
      npm_config_registry: `http://me:secret@${host}/npm/`,
    });
    const pip = await sandbox.run(
      "pip install -q tiny-thing 2>&1 && python3 -c 'import tiny_thing as t; print(t.answer)'",
    );
    expect(pip.stdout).toMatch(/^42$/m);
    const npm = await sandbox.run(
      "cd /tmp && npm install tiny-thing 2>&1 && node -p 'require(\"tiny-thing\")'",
    );
    expect(npm.stdout).toMatch(/^42$/m);
    expect(new Set(receivedCredentials)).toEqual(new Set(["none"]));
    const port = Number(host.split(":")[1]) + 1;
    const beside = await sandbox.run(`curl -sS -m 10 http://${ownAddress?.address}:${port}/ 2>&1; true`);
    expect(beside.stdout).toContain("a sandbox may not reach");
  });
});

describe("a sandbox", () => {
  let sandbox: TestSandbox;
  beforeAll(async () => {
    const engine = await startTestEngine();
    sandbox = await TestSandbox.start(engine);
    return () => engine.close();
  });

  it("has a default git name, which the user's own name replaces", async () => {
    const commit = "git commit -q --allow-empty -m one && git log -1 --format='%an <%ae>'";
    expect((await sandbox.run(`mkdir a && cd a && git init -q && ${commit}`)).stdout).toBe(
      "Sandbox <sandbox@localhost>",
    );
    const changed = await sandbox.run(`cd a && git config --global user.name Ada && ${commit}`);
    expect(changed.stdout).toBe("Ada <sandbox@localhost>");
  });

  it("runs the command of sudo, because it already is root", async () => {
    const result = await sandbox.run(
      "sudo -n -E -u root -- A='b c' sh -c 'id -u; echo $A' && sudo -v && sudo false",
    );
    expect(result).toMatchObject({ stdout: "0\nb c", exitCode: 1 });
    // Only a server that root started has sandboxes with several users.
    const other = await sandbox.run("sudo -u nobody id -un");
    const refused = {
      exitCode: 1,
      stderr: expect.stringContaining("everything in this sandbox runs as root"),
    };
    expect(other).toMatchObject(process.getuid?.() === 0 ? { exitCode: 0, stdout: "nobody" } : refused);
  });

  it.runIf(existsSync("/usr/bin/dpkg"))("refuses dpkg -i, and passes other calls on to dpkg", async () => {
    const { stderr, exitCode } = await sandbox.run("sudo dpkg -i /tmp/some.deb");
    expect(stderr).toContain("dpkg: packages of the system cannot be installed in a local sandbox.");
    expect(exitCode).toBe(100);
    expect((await sandbox.run("dpkg --print-architecture")).stdout).toMatch(/^\w+$/);
  });

  it.each(["apt-get", "apt", "dnf"].filter((name) => existsSync(`/usr/bin/${name}`)))(
    "prints which packages can be installed, after it refuses packages of the system by %s",
    async (name) => {
      for (const command of [name, `/usr/bin/${name}`]) {
        const { stderr, exitCode } = await sandbox.run(`${command} install -y jq`);
        expect(stderr).toContain(`${name}: packages of the system cannot be installed in a local sandbox.`);
        expect(stderr).toMatch(/pip install and npm install/);
        expect(exitCode).toBe(100);
      }
    },
  );
});
