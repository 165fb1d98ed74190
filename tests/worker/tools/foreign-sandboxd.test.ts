/** A user's program in place of sandboxd sends arbitrary responses to requests about files. */
import { beforeAll, describe, expect, it } from "vitest";
import { type Result, evaluateInSandboxd, runInKernel, owner, until } from "../support.ts";
import TAKE_PLACE from "../../setup/take-place.cjs?raw";

const sandbox = "foreign-sandboxd";

/** Responds to each request with the head in /tmp/response, and with its body as often as /tmp/times says. */
const PROGRAM = `${TAKE_PLACE}
function* responseParts() {
  const response = fs.readFileSync("/tmp/response");
  const bodyAt = response.indexOf("\\n\\n") + 2;
  yield Buffer.from(response.toString("latin1", 0, bodyAt).replaceAll("\\n", "\\r\\n"));
  for (let left = Number(fs.readFileSync("/tmp/times")); left > 0; left--) yield response.subarray(bodyAt);
}
const { Readable } = require("node:stream");
const respond = (socket) => Readable.from(responseParts()).pipe(socket);
takePlace(net.createServer((socket) => socket.on("error", () => undefined).once("data", () => respond(socket))));
sendBeats();
`;

const OK = "HTTP/1.1 200 OK\nConnection: close\n";
const EMPTY = `${OK}Content-Length: 0\n\n`;

/** Uses a kernel. A connection to sandboxd could break on a busy machine, and the next one would lead to the program. */
const respondWith = (response: string, times = 1) =>
  runInKernel(
    sandbox,
    `open("/tmp/response", "w").write(${JSON.stringify(response)}); open("/tmp/times", "w").write("${times}")`,
  );

/** Compresses the body of the response. */
const ENCODE = `import gzip; a = open("/tmp/response", "rb").read(); h, m, b = a.partition(b"\\n\\n"); open("/tmp/response", "wb").write(h + m + gzip.compress(b))`;

beforeAll(async () => {
  await owner.call("write_file", { sandbox, path: "/tmp/foreign.cjs", content: PROGRAM });
  await respondWith(EMPTY);
  // A kernel starts the program, because the output of a command is lost if the program takes sandboxd's place before it arrives.
  const start = `import subprocess
subprocess.run("setsid -f node /tmp/foreign.cjs >/tmp/foreign.log 2>&1", shell=True, stdin=subprocess.DEVNULL)`;
  await runInKernel(sandbox, start);
  await until(async () => (await owner.call("list_files", { sandbox })).text.includes("is damaged"));
});

const calls = (): Promise<Result[]> =>
  Promise.all([
    owner.call("read_file", { sandbox, path: "a" }),
    owner.call("read_file", { sandbox, path: "a", encoding: "base64" }),
    owner.call("list_files", { sandbox }),
    owner.call("write_file", { sandbox, path: "a", content: "a" }),
  ]);

const DAMAGED = Array.from({ length: 4 }, () =>
  expect.objectContaining({ text: expect.stringMatching(/is damaged[^]*destroy_sandbox/), isError: true }),
);

describe("a sandbox with a program in place of sandboxd", () => {
  it.each([
    ["an empty body", EMPTY, 1],
    ["no JSON, and no sizes", `${OK}Content-Length: 4\n\nnope`, 1],
    ["JSON of another kind", `${OK}Content-Length: 23\n\n{"entries":[1],"size":-1}`.replace("23", "25"), 1],
    ["another status", "HTTP/1.1 302 Found\nLocation: http://127.0.0.1/\nContent-Length: 0\n\n", 1],
    [
      "a failure of no known kind",
      'HTTP/1.1 422 X\nContent-Length: 17\n\n{"problem":"fire"}'.replace("17", "18"),
      1,
    ],
    ["an invalid size", `${OK}sandboxd-size: 1e99\nsandboxd-lines: -1\nContent-Length: 1\n\nx`, 1],
    [
      "more data than requested",
      `${OK}sandboxd-size: 1\nsandboxd-lines: 1\nContent-Length: 99000000\n\n${"x".repeat(99_000)}`,
      1000,
    ],
    ["an endless body", `${OK}sandboxd-size: 1\nsandboxd-lines: 1\n\n${"x".repeat(99_000)}`, 100_000],
  ])("is reported as damaged for a response with %s", async (_what, response, times) => {
    await respondWith(response, times);
    expect(await calls()).toEqual(DAMAGED);
  });

  it("is reported as damaged for a response with an unrequested encoding", async () => {
    const body = '{"entries":[],"size":1,"problem":"missing"}';
    const plain = `${OK}sandboxd-size: 1\nsandboxd-lines: 1\nContent-Length: ${body.length}\n\n${body}`;
    await respondWith(plain);
    expect((await owner.call("list_files", { sandbox })).isError).toBe(false);
    await respondWith(plain.replace("200 OK", "422 X"));
    expect((await owner.call("list_files", { sandbox })).text).toContain("There is no");
    const encoded = plain.replace(/Content-Length: \d+/, "Content-Encoding: gzip");
    await respondWith(encoded);
    await runInKernel(sandbox, ENCODE);
    expect(await calls()).toEqual(DAMAGED);
    await respondWith(encoded.replace("200 OK", "422 X"));
    await runInKernel(sandbox, ENCODE);
    expect(await calls()).toEqual(DAMAGED);
  });

  it.each([
    ["lists in lists", "[".repeat(9) + "]".repeat(9), "[".repeat(10) + "]".repeat(10)],
    ["values", `[${"0,".repeat(40_000)}0]`, `[${"0,".repeat(50_000)}0]`],
    ["characters in a name", `{"${"k".repeat(90)}":0}`, `{"${"k".repeat(110)}":0}`],
  ])("is reported as damaged for a response with too many %s", async (_what, allowed, tooMuch) => {
    const list = async (more: string) => {
      // The schema does not know this member, so only the bounds refuse it.
      const body = `{"entries":[],"more":${more}}`;
      await respondWith(`${OK}Content-Length: ${body.length}\n\n${body}`);
      return await owner.call("list_files", { sandbox });
    };
    expect((await list(allowed)).isError).toBe(false);
    expect(await list(tooMuch)).toEqual(DAMAGED[0]);
  });
});

/** Makes sandboxd report that a task has created a file of 5,000 bytes, and return one byte of that file for each request. */
const IN_A_TASK = `
const { writeFileSync } = process.getBuiltinModule("fs");
const { Server } = process.getBuiltinModule("http");
const { emit } = Server.prototype;
const changes = { count: 1, listBytes: 0, diffBytes: 0, files: [{ path: "a.txt", change: "created", type: "file", size: 5000 }] };
let reads = 0;
Server.prototype.emit = function (event, request, response, ...rest) {
  const path = event === "request" ? request.url : "";
  if (path.startsWith("/changes?")) response.end(JSON.stringify({ changes }));
  else if (request.method === "GET" && path.startsWith("/files?")) {
    writeFileSync("/tmp/reads", String(++reads));
    response.writeHead(200, { "sandboxd-size": 5000, "sandboxd-modified": 0, "content-length": 1 }).end("x");
  } else return emit.call(this, event, request, response, ...rest);
  return true;
};
`;

it("code that changed sandboxd cannot make the server read a task's file byte by byte", async () => {
  const inTask = `${sandbox}-task`;
  await evaluateInSandboxd(inTask, IN_A_TASK);
  const { structured } = await owner.call("execute_task", { sandbox: inTask, task: "[[write]]" });
  expect(structured).toMatchObject({ state: "succeeded", artifacts: [{ path: "a.txt", size: 1 }] });
  // One for the diff, and one for the file.
  expect(await runInKernel(inTask, 'print(open("/tmp/reads").read())')).toContain("2");
  await owner.call("destroy_sandbox", { sandbox: inTask });
});
