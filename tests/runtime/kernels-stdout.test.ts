/** The real stdout of a JavaScript kernel, written in every possible way. */
import { describe, expect, it } from "vitest";
import { endLater } from "../setup/end-later.ts";
import { Lab } from "./kernel-harness.ts";

const kernel = await endLater(await Lab.open()).kernel("javascript");
await kernel.run(
  "const fs = require('fs'); const fsp = fs.promises; const { pipeline } = require('stream/promises'); const { Readable, Writable } = require('stream')",
);

/** The output of a run, from its document and its files. */
async function outputOf(code: string): Promise<string> {
  let run = "";
  const { stdout, error } = await kernel.run(code, { onStart: (id) => (run = id) });
  if (error) throw new Error(error.traceback.join("\n"));
  return stdout.text ?? kernel.file(run, "out");
}

describe("output to the real stdout", () => {
  it.each([
    "fs.writeFileSync(process.stdout.fd, 'x')",
    "fs.writeFileSync(1, Buffer.from('x'))",
    "fs.appendFileSync(1, 'x')",
    "fs.writeFileSync('/dev/stdout', 'x')",
    "fs.writeFileSync('/proc/self/fd/1', '78', 'hex')",
    "await new Promise((r) => fs.writeFile('/dev/stdout', 'x', r))",
    "await fsp.writeFile('/dev/fd/1', 'x')",
    "await fsp.appendFile('/dev/stdout', ['x'])",
    "fs.writeSync(1, Buffer.from('axb'), 1, 1)",
    "fs.writevSync(1, [Buffer.from('x')])",
    "await new Promise((r) => fs.write(1, 'x', r))",
    "const fd = fs.openSync('/dev/stdout', 'w'); fs.writeSync(fd, 'x'); fs.closeSync(fd)",
    "const h = await fsp.open('/dev/stdout', 'w'); await h.write('x'); await h.close()",
    "await pipeline(Readable.from(['x']), fs.createWriteStream('/dev/stdout'))",
    "await pipeline(Readable.from(['x']), fs.createWriteStream(null, { fd: 1 }))",
    "await pipeline(Readable.from(['x']), process.stdout)",
    "const r = Readable.from(['x']); r.pipe(process.stdout); await require('events').once(r, 'end')",
    "process.stdout.end('x')",
    "await new Promise((r) => process.stdout.end('x', r))",
    "process.stdout.destroy(); process.stdout.write('x')",
    "const w = Writable.toWeb(process.stdout).getWriter(); await w.write('x'); await w.close()",
    "fs.closeSync(1); process.stdout.cork(); process.stdout.write('x'); process.stdout.uncork()",
    "const { Worker } = require('worker_threads'); await new Promise((r) => new Worker('process.stdout.write(`x`)', { eval: true }).on('exit', r)); await new Promise((r) => setTimeout(r, 20))",
    "new console.Console(process.stdout).log('x')",
    "require('child_process').spawnSync('sh', ['-c', 'printf x'], { stdio: ['ignore', process.stdout, 'pipe'] })",
  ])("belongs to the run: %s", async (code) => {
    expect((await outputOf(`${code};`)).trim()).toBe("x");
    expect(await kernel.value("1 + 1")).toBe("2");
  });

  it("is complete and in order when it is long", async () => {
    expect(
      await outputOf(
        "console.log(1); fs.writeFileSync(1, '2\\n'); process.stdout.end('3\\n'); console.log(4)",
      ),
    ).toBe("1\n2\n3\n4\n");
    const long = await outputOf(
      "await pipeline(Readable.from(Array(300).fill('y'.repeat(1000))), process.stdout)",
    );
    expect(long).toBe("y".repeat(300_000));
  });

  it("from timers that print all the time does not break a run", async () => {
    await kernel.run("var ticks = setInterval(() => { fs.writeSync(1, 'tick\\n'); console.log('tock') }, 1)");
    for (let index = 0; index < 50; index++) {
      expect(await kernel.value(String(index))).toBe(String(index));
    }
    await kernel.run("clearInterval(ticks)");
  });

  it("does not appear in stdin, which is empty", async () => {
    const code =
      "[fs.readSync(0, Buffer.alloc(5)), fs.readFileSync('/dev/stdin', 'utf8'), (await fs.createReadStream('/dev/stdin').toArray()).length]";
    expect(await kernel.value(code)).toBe("[ 0, '', 0 ]");
  });
});
