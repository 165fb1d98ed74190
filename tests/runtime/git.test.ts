import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { failureOf, REMOTE_URL, startRuntime, type Runtime } from "./runtime.ts";

let runtime: Runtime;
let api: Runtime["api"];
let root: string;
const session = `git-${process.pid}`;

const shell = async (command: string): Promise<string> => {
  const { stdout, stderr, exitCode } = await api.commands.execute(command, session, { cwd: root });
  if (exitCode !== 0) throw new Error(stderr);
  return stdout;
};

beforeAll(async () => {
  runtime = await startRuntime();
  api = runtime.api;
  root = `${runtime.workspace}/${session}`;
  await api.files.mkdir(root, session);
  const commit = "git -c user.name=t -c user.email=t@example.com commit -q";
  await shell(`git init -q -b trunk origin.git && cd origin.git && git config uploadpack.allowFilter true &&
    echo 1 > a && git add a && ${commit} -m one && git checkout -q -b side && echo 2 > a && ${commit} -am two &&
    git checkout -q trunk`);
});
afterAll(async () => {
  await shell(`rm -rf ${root}`);
  await runtime.stop();
});

describe("git.checkout", () => {
  it("clones a repository and says its branch", async () => {
    const targetDir = `${root}/clone with space`;
    const result = await api.git.checkout(`file://${root}/origin.git`, session, { targetDir });
    expect(result).toMatchObject({
      success: true,
      targetDir,
      branch: "trunk",
      repoUrl: `file://${root}/origin.git`,
    });
    expect(await shell("cat 'clone with space/a'")).toBe("1");
  });

  it("clones one branch, shallow, into the workspace by default", async () => {
    const result = await api.git.checkout(`file://${root}/origin.git`, session, { branch: "side", depth: 1 });
    expect(result).toMatchObject({ targetDir: `${runtime.workspace}/origin`, branch: "side" });
    expect(await shell(`cd ${runtime.workspace}/origin && cat a && git rev-list --count HEAD`)).toBe("2\n1");
    await shell(`rm -rf ${runtime.workspace}/origin`);
  });

  it("takes a hostile URL as a URL", async () => {
    const failure = await failureOf(
      api.git.checkout("--upload-pack=touch pwned", session, { targetDir: `${root}/x` }),
    );
    expect(failure.code).toMatch(/^GIT_/);
    expect((await api.files.exists(`${root}/pwned`, session)).exists).toBe(false);
  });

  it("fails with the container's codes and without the credentials", async () => {
    const url = "http://user:secret@127.0.0.1:9/none.git";
    const failure = await failureOf(api.git.checkout(url, session));
    expect(failure.code).toBe("GIT_OPERATION_FAILED");
    expect(failure.details).toMatchObject({
      exitCode: 128,
      repository: "http://******@127.0.0.1:9/none.git",
    });
    expect(JSON.stringify([failure.message, failure.details])).not.toContain("secret");
    expect((await failureOf(api.git.checkout(" ", session))).code).toBe("INVALID_GIT_URL");
    const late = api.git.checkout(`file://${root}/origin.git`, session, { timeoutMs: 0 });
    expect((await failureOf(late)).code).toBe("VALIDATION_FAILED");
  });

  it.skipIf(REMOTE_URL)("gives up after its timeout", async () => {
    await shell("printf '#!/bin/sh\\nsleep 60\\n' > slow-ssh && chmod +x slow-ssh");
    await shell(`export GIT_SSH_COMMAND=${root}/slow-ssh`);
    const failure = await failureOf(api.git.checkout("ssh://x@localhost/y", session, { timeoutMs: 300 }));
    expect(failure).toMatchObject({ code: "GIT_NETWORK_ERROR", details: { exitCode: 124 } });
  });
});
