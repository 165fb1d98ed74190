/**
 * `npm start -- --mount <directory>`: a sandbox of the server's owner gets the directory, with the rights of the directory's
 * owner only.
 */
import { createHash } from "node:crypto";
import {
  chmodSync,
  chownSync,
  constants,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { runFile } from "../../local/engine/host-programs.ts";
import { endLater } from "../setup/end-later.ts";
import { repository, startServer, TOKEN } from "../setup/server.ts";
import { MCPClient } from "../setup/mcp-client.ts";
import { callTool, tool } from "../setup/tool.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const isRoot = process.getuid?.() === 0;
/** The directory's owner: an id without a user, if the tests may change owners. */
const owner = isRoot ? 61_234 : (process.getuid?.() ?? 0);
const OTHER = "the-token-of-another-principal";

const directory = temporaryDirectory();

const instructions = async (url: string, token = TOKEN) => {
  const clientInfo = { name: "test", version: "1" };
  const params = { protocolVersion: "2025-06-18", capabilities: {}, clientInfo };
  const client = new MCPClient(url, token);
  const result = await client.result<{ instructions: string }>({ method: "initialize", params });
  return result.instructions;
};

chmodSync(directory, 0o755);
writeFileSync(join(directory, "secret"), "beside");
for (const name of ["My Project", "theirs", "fixed"]) {
  const path = join(directory, name);
  mkdirSync(path);
  writeFileSync(join(path, "file"), `of ${name}`);
  chmodSync(path, 0o700);
  if (isRoot) for (const one of [path, join(path, "file")]) chownSync(one, owner, owner);
}
symlinkSync("../secret", join(directory, "My Project/relative"));
symlinkSync(join(directory, "secret"), join(directory, "My Project/absolute"));
symlinkSync(join(directory, "theirs"), join(directory, "link"));
const hash = createHash("sha256").update(OTHER).digest("hex");
const tokens = [{ name: "other", sha256: hash, scopes: ["sandbox:read", "sandbox:write", "sandbox:exec"] }];
const server = endLater(
  await startServer({
    flags: ["My Project", "link=work:rw", "fixed:ro"].flatMap((name) => ["--mount", join(directory, name)]),
    // The server follows a link only if no sandbox can have made it, for example a link in the home directory.
    env: { AUTH_TOKENS: JSON.stringify(tokens), HOME: directory },
  }),
);

const run = (sandbox: string, command: string, token?: string) =>
  callTool(server.url, "run_command", { sandbox, command }, token);

describe("a mounted directory", () => {
  it("is named in the first lines of list_sandboxes, only for the owner", async () => {
    const lines = (await callTool(server.url, "list_sandboxes", {})).split("\n");
    expect(lines.slice(0, 3)).toEqual([
      expect.stringContaining(
        `/workspace/My Project in sandbox my-project is the user's own directory ${directory}/My Project`,
      ),
      expect.stringContaining(
        `/workspace/link in sandbox work is the user's own directory ${directory}/theirs`,
      ),
      expect.stringContaining("/workspace/fixed in sandbox fixed"),
    ]);
    expect(lines[2]).toContain("read-only");
    expect(await callTool(server.url, "list_sandboxes", {}, OTHER)).not.toContain("Mounted");
  });

  it("is named with its address when the server starts, and in the owner's instructions at every address", async () => {
    for (const [path, sandbox] of [
      ["/workspace/My Project", "my-project"],
      ["/workspace/link", "work"],
      ["/workspace/fixed", "fixed"],
    ])
      expect(server.stdout()).toContain(`${path} in sandbox ${sandbox}: ${server.url}?sandbox=${sandbox}\n`);
    for (const query of ["", "?sandbox=work"]) {
      const text = await instructions(server.url + query);
      expect(text).toContain(
        `/workspace/link in sandbox work is the user's own directory ${directory}/theirs (changes in it`,
      );
      expect(text).toContain("/workspace/fixed in sandbox fixed");
    }
    expect(await instructions(server.url, OTHER)).not.toContain("Mounted");
    expect(server.stderr()).not.toContain("chown");
  });

  it("is in the sandbox, and files written there belong to its owner", async () => {
    expect(await run("my-project", "cat '/workspace/My Project/file'")).toContain("of My Project");
    const path = "/workspace/My Project/new/file.txt";
    await callTool(server.url, "write_file", { sandbox: "my-project", path, content: "written" });
    await run("my-project", "echo printed > '/workspace/My Project/printed'");
    expect(readFileSync(join(directory, "My Project/new/file.txt"), "utf8")).toBe("written");
    for (const name of ["new", "new/file.txt", "printed"]) {
      expect(statSync(join(directory, "My Project", name)).uid).toBe(owner);
    }
    expect(await run("work", "cd /workspace/link && git init -q && cat file")).toContain("of theirs");
    expect(existsSync(join(directory, "theirs/.git"))).toBe(true);
  });

  it("is in no other sandbox, and in no other principal's sandbox of that name", async () => {
    expect(await run("default", "ls -A /workspace")).toBe("exit_code: 0");
    expect(await run("my-project", "ls -A /workspace", OTHER)).toBe("exit_code: 0");
    expect(await run("my-project", "ls /workspace")).not.toContain("link");
  });

  it("gives access to no other directory", async () => {
    const attempts = [
      "cd '/workspace/My Project'",
      "cat relative absolute ../secret",
      `ls ${directory}`,
      "ln secret2 x; ln /workspace/../../secret y",
      "mknod device b 8 0",
      "chown 1 file",
      "mount --bind / new",
      `cat /proc/1/root${directory}/secret`,
    ];
    expect(await run("my-project", attempts.join("\n"))).not.toContain("beside");
    expect(existsSync(join(directory, "My Project/device"))).toBe(false);
    expect(statSync(join(directory, "My Project/file")).uid).toBe(owner);
  });

  it("cannot be written to if it is read-only", async () => {
    expect(await run("fixed", "cat /workspace/fixed/file; echo x >/workspace/fixed/file")).toMatch(
      /of fixed[^]*Read-only file system/,
    );
    expect(await run("fixed", "rm -rf /workspace/fixed; mount -o remount,rw /workspace/fixed")).toMatch(
      /Read-only file system/,
    );
    expect(readFileSync(join(directory, "fixed/file"), "utf8")).toBe("of fixed");
    for (const path of ["/workspace/fixed/new", "/workspace/fixed/file", "/workspace/fixed/new/below"]) {
      const { text } = await tool(server.url, "write_file", { sandbox: "fixed", path, content: "x" });
      expect(text).toContain("mounted read-only");
      expect(text).not.toMatch(/\.sandbox-mcp|use a path under/i);
    }
  });

  it("may hold more bytes than the sandbox's disk", async () => {
    const df = await run("my-project", "df --output=size -B1 / | tail -1");
    const limit = Number(/(\d+)\s*$/.exec(df)?.[1]);
    expect(limit).toBeGreaterThan(0);
    const write = `fallocate -l ${limit + 1024 * 1024} '/workspace/My Project/large' && echo fits`;
    expect(await run("my-project", write)).toContain("fits");
    rmSync(join(directory, "My Project/large"));
  });

  it("remains when its sandbox is destroyed, and is in the next one", async () => {
    await run("work", "echo kept > /workspace/link/kept; echo gone > /workspace/gone");
    await callTool(server.url, "destroy_sandbox", { sandbox: "work" });
    expect(readFileSync(join(directory, "theirs/kept"), "utf8")).toBe("kept\n");
    expect(await run("work", "cat /workspace/link/kept; ls /workspace")).toMatch(/kept\nlink$/m);
  });

  it("shows its new content after it was replaced on the machine, and causes an error after its removal", async () => {
    await callTool(server.url, "destroy_sandbox", { sandbox: "work" });
    rmSync(join(directory, "theirs"), { recursive: true });
    await expect(run("work", "true")).rejects.toThrow(/could not be started/);
    await expect.poll(() => server.stderr()).toMatch(/the mounted directory \S+theirs no longer exists/);
    expect(await run("default", "echo others go on")).toContain("others go on");
    mkdirSync(join(directory, "theirs"));
    writeFileSync(join(directory, "theirs/file"), "made again");
    if (isRoot) chownSync(join(directory, "theirs"), owner, owner);
    expect(await run("work", "cat /workspace/link/file")).toContain("made again");
  });

  it("is not mounted after a link has replaced it", async () => {
    await callTool(server.url, "destroy_sandbox", { sandbox: "work" });
    renameSync(join(directory, "theirs"), join(directory, "moved"));
    symlinkSync(join(directory, "moved"), join(directory, "theirs"));
    await expect(run("work", "cat /workspace/link/file")).rejects.toThrow(/could not be started/);
    await expect
      .poll(() => server.stderr())
      .toMatch(/a symbolic link has replaced the mounted directory \S+theirs/);
  });
});

it("npm start refuses to mount a directory that contains its Node, or modules that its Node would load", async () => {
  const args = ["--port", "0", "--state-dir", join(directory, "state"), "--mount", join(directory, "fixed")];
  const start = (node: string, more: object = {}) =>
    runFile(node, [join(repository, "cli/start.ts"), ...args], {
      env: { ...process.env, ...more },
    });
  const modules = { NODE_PATH: join(directory, "fixed/node_modules") };
  await expect(start(process.execPath, modules)).rejects.toThrow(
    /NODE_PATH: the server itself uses \S+fixed\/node_modules/,
  );
  const own = join(directory, "fixed/node");
  copyFileSync(process.execPath, own, constants.COPYFILE_FICLONE);
  await expect(start(own)).rejects.toThrow(/node: the server itself uses \S+fixed\/node/);
});
