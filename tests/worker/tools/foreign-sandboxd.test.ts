/** A user's program in place of sandboxd sends arbitrary responses to requests about files. */
import { beforeAll, describe, expect, it } from "vitest";
import { type Result, runInKernel, owner, until } from "../support.ts";
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

/** Adds a listing of two gigabytes, compressed, to the response. */
const ENCODE = `import zlib
packer = zlib.compressobj(1, zlib.DEFLATED, 31)
with open("/tmp/response", "ab") as response:
    response.write(packer.compress(b'{"entries":['))
    for _ in range(2048): response.write(packer.compress(b"{}," * 349525))
    response.write(packer.flush())`;

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
    ["no JSON, and no sizes", `${OK}Content-Length: 4\n\nnope`, 1],
    ["JSON of another kind", `${OK}Content-Length: 25\n\n{"entries":[1],"size":-1}`, 1],
    ["another status", "HTTP/1.1 302 Found\nLocation: http://127.0.0.1/\nContent-Length: 0\n\n", 1],
    ["megabytes of values", `${OK}\n{"entries":[${"{},".repeat(2_000_000)}{}]}`, 1],
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

  it("is reported as damaged for a compressed response of gigabytes", async () => {
    await respondWith(`${OK}Content-Encoding: gzip\n\n`);
    await runInKernel(sandbox, ENCODE);
    expect(await calls()).toEqual(DAMAGED);
  });
});
