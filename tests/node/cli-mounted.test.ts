/** Commands that read or write files in a directory that a sandbox of the local server can change. */
import { execFileSync } from "node:child_process";
import {
  constants,
  existsSync,
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
import { beforeEach, describe, expect, it } from "vitest";
import { openUserPath } from "../../cli/linked-paths.ts";
import { noteRunning } from "../../cli/running.ts";
import { runHere } from "../setup/cli.ts";
import { serve } from "../setup/serve.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

let home: string;
let project: string;
let stateDir: string;
let received: string[];
let url: string;

beforeEach(async () => {
  home = temporaryDirectory();
  project = join(home, "project");
  stateDir = temporaryDirectory();
  mkdirSync(project);
  mkdirSync(join(home, "private"));
  writeFileSync(join(home, "private/key"), "the secret");
  received = [];
  const respond: RequestListener = (request, response) => {
    let text = "";
    request.on("data", (piece: Buffer) => (text += piece.toString()));
    request.on("end", () => {
      received.push(text);
      if (request.method === "GET")
        return response.setHeader("content-disposition", "attachment").end("from the sandbox");
      return response.end(JSON.stringify({ path: "/workspace/x", size: text.length }));
    });
  };
  url = await serve(respond, "/mcp");
  noteRunning(stateDir, url, [project]);
});

const call = (...words: string[]) => runHere([...words, "--token", "any", "--state-dir", stateDir]);

describe("a command that sends a local file", () => {
  it.each([
    ["the file", "report.txt", "private/key"],
    ["a directory", "data", "private"],
  ])("refuses a link from a mounted directory to another place: %s", async (_which, name, target) => {
    symlinkSync(join(home, target), join(project, name));
    const path = join(project, name === "data" ? "data/key" : name);
    for (const words of [
      ["files", "put"],
      ["code", "--file"],
      ["command", "--file"],
    ]) {
      const { code, stdout, stderr } = await call(...words, path);
      expect([code, stdout, stderr]).toEqual([
        77,
        "",
        `Error: ${path} leads to ${home}/private/key through a symbolic link in ${project}, and code in a sandbox may have made this link. Name ${home}/private/key itself if you want it.\n`,
      ]);
    }
    expect(received).toEqual([]);
  });

  it("follows links within a mounted directory, and those that no sandbox can make", async () => {
    writeFileSync(join(project, "v2.txt"), "version 2");
    symlinkSync("v2.txt", join(project, "latest.txt"));
    symlinkSync(project, join(home, "current"));
    symlinkSync(join(home, "private/key"), join(home, "key"));
    for (const path of [join(home, "current/latest.txt"), join(home, "key")])
      expect(await call("files", "put", path)).toMatchObject({ code: 0 });
    expect(received).toEqual(["version 2", "the secret"]);
  });
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

it("`--save` writes no images through a link from a mounted directory to another place", async () => {
  symlinkSync(join(home, "private"), join(project, "charts"));
  for (const word of ["code", "ask"]) {
    const { code, stderr } = await call(word, "1 + 1", "--save", join(project, "charts"));
    expect([code, stderr]).toEqual([77, expect.stringContaining(`through a symbolic link in ${project}`)]);
  }
  expect(received).toEqual([]);
});

it.each([
  ["the file", "report.json", "private/key"],
  ["a directory", "reports", "private"],
])("`diagnose` writes no report through a link in a mounted directory: %s", async (_which, name, target) => {
  symlinkSync(join(home, target), join(project, name));
  const path = join(project, name === "reports" ? "reports/key" : name);
  const { code, stderr } = await call("diagnose", "--output", path);
  expect([code, stderr]).toEqual([69, expect.stringContaining(path)]);
  expect(readFileSync(join(home, "private/key"), "utf8")).toBe("the secret");
});

describe("files get", () => {
  it("writes nothing through a link from a mounted directory to another place", async () => {
    symlinkSync(join(home, "private"), join(project, "out"));
    for (const to of ["out", "out/key", "out/new"]) {
      const { code, stderr } = await call("files", "get", "x", join(project, to), "--force");
      expect([code, stderr]).toEqual([77, expect.stringContaining(`through a symbolic link in ${project}`)]);
    }
    expect(readdirSync(join(home, "private"))).toEqual(["key"]);
    expect(readFileSync(join(home, "private/key"), "utf8")).toBe("the secret");
  });

  it("writes into the directory that it has checked, even if code replaces the directory with a link", async () => {
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

  it("writes files into mounted and other directories", async () => {
    for (const to of [join(project, "a"), join(home, "b")]) {
      expect(await call("files", "get", "x", to)).toMatchObject({ code: 0, stdout: `${to}: 16 B\n` });
      expect(existsSync(to)).toBe(true);
    }
  });
});
