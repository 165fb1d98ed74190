/** Commands that read or write files in a directory that a sandbox of the local server can change. */
import { execFileSync } from "node:child_process";
import {
  constants,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import type { RequestListener } from "node:http";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { beforeEach, expect, it } from "vitest";
import { openUserPath } from "../../cli/linked-paths.ts";
import { noteRunning } from "../../cli/running.ts";
import { runHere } from "../setup/cli.ts";
import { serve } from "../setup/serve.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

let [home, project, stateDir] = ["", "", ""];
let received: string[] = [];

beforeEach(async () => {
  home = temporaryDirectory();
  project = join(home, "project");
  stateDir = temporaryDirectory();
  mkdirSync(project);
  mkdirSync(join(home, "private"));
  writeFileSync(join(home, "private/key"), "the secret");
  received = [];
  const url = await serve(async (request, response) => {
    received.push(await text(request));
    if (request.method === "GET")
      return response.setHeader("content-disposition", "attachment").end("from the sandbox");
    return response.end(JSON.stringify({ path: "/workspace/x", size: 1 }));
  }, "/mcp");
  noteRunning(stateDir, url, [project]);
});

const call = (...words: string[]) => runHere([...words, "--token", "any", "--state-dir", stateDir]);

const REFUSAL =
  / leads to (\S+\/private\S*) through a symbolic link in \S+\/project, .* Name \1 itself if you want/;
const LINKS = ["directory/key", "file"];

it.each([
  ["files put", LINKS, 77, REFUSAL],
  ["code --file", LINKS, 77, REFUSAL],
  ["command --file", LINKS, 77, REFUSAL],
  ["code 1 --save", ["directory"], 77, REFUSAL],
  ["ask what --save", ["directory"], 77, REFUSAL],
  ["files get --force x", ["directory", "directory/key", "directory/new"], 77, REFUSAL],
  ["diagnose --output", LINKS, 69, /project\/(directory|file)/],
])("`%s` follows no link from a mounted directory to another place", async (words, names, status, reason) => {
  symlinkSync(join(home, "private"), join(project, "directory"));
  symlinkSync(join(home, "private/key"), join(project, "file"));
  for (const path of names.map((name) => join(project, name))) {
    const { code, stdout, stderr } = await call(...words.split(" "), path);
    expect([code, stdout, stderr]).toEqual([status, "", expect.stringMatching(reason)]);
  }
  // diagnose sends requests without content.
  expect(received.join("")).toBe("");
  expect(readdirSync(join(home, "private"))).toEqual(["key"]);
  expect(readFileSync(join(home, "private/key"), "utf8")).toBe("the secret");
});

it("a command follows links within a mounted directory, and those that no sandbox can make", async () => {
  writeFileSync(join(project, "v2.txt"), "version 2");
  symlinkSync("v2.txt", join(project, "latest.txt"));
  symlinkSync(project, join(home, "current"));
  symlinkSync(join(home, "private/key"), join(home, "key"));
  for (const path of [join(home, "current/latest.txt"), join(home, "key")])
    expect(await call("files", "put", path)).toMatchObject({ code: 0 });
  expect(received).toEqual(["version 2", "the secret"]);
});

it("`--file` waits for the text in a pipe, which a shell makes for the output of another program", () => {
  const pipe = join(home, "pipe");
  execFileSync("mkfifo", [pipe]);
  // Otherwise opening the pipe would wait for a writer.
  openSync(pipe, constants.O_RDWR);
  const file = openUserPath(pipe, { stateDir });
  const [, flags = ""] = /^flags:\s+(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${file}`, "utf8")) ?? [];
  expect(parseInt(flags, 8) & constants.O_NONBLOCK).toBe(0);
});

it("`files get` writes into the directory that it has checked, even if code replaces the directory with a link", async () => {
  mkdirSync(join(project, "out"));
  const replace: RequestListener = (_request, response) => {
    response.setHeader("content-disposition", "attachment").flushHeaders();
    setTimeout(() => {
      renameSync(join(project, "out"), join(project, "moved"));
      symlinkSync(join(home, "private"), join(project, "out"));
      response.end("from the sandbox");
    }, 200);
  };
  const other = await serve(replace, "/mcp");
  const { code } = await call("files", "get", "x", join(project, "out/key"), "--force", "--url", other);
  expect(code).toBe(0);
  expect(readFileSync(join(home, "private/key"), "utf8")).toBe("the secret");
  expect(readFileSync(join(project, "moved/key"), "utf8")).toBe("from the sandbox");
});

it("`files get` writes files into mounted and other directories", async () => {
  for (const to of [join(project, "a"), join(home, "b")]) {
    expect(await call("files", "get", "x", to)).toMatchObject({ code: 0, stdout: `${to}: 16 B\n` });
    expect(readFileSync(to, "utf8")).toBe("from the sandbox");
  }
});
