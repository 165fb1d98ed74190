import { closeSync, existsSync, mkdtempSync, openSync, rmSync, statSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { OUTPUT_CAP_BYTES, OutputFile } from "../../local/runtime/output-file.ts";

const directory = mkdtempSync(join(tmpdir(), "output-file-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const MIB = 1024 * 1024;

describe("the file a command writes its output into", () => {
  it("gives back the middle of a large output while it grows, and keeps both ends", async () => {
    const file = new OutputFile(join(directory, "large"));
    const writer = openSync(file.path, "w");
    const block = Buffer.alloc(MIB, "x");
    writeSync(writer, "start");
    for (let i = 0; i < 100; i++) writeSync(writer, block);
    writeSync(writer, "end");
    file.trim();
    const used = (): number => statSync(file.path).blocks * 512;
    await expect.poll(used, { timeout: 10_000 }).toBeLessThan(3 * OUTPUT_CAP_BYTES);

    writeSync(writer, "more");
    closeSync(writer);
    const text = (await file.read()).toString();
    expect(text.startsWith("startxxx")).toBe(true);
    expect(text.endsWith("xxxendmore")).toBe(true);
    expect(text).toContain(`[${100 * MIB + 12 - OUTPUT_CAP_BYTES} bytes left out by the local runtime]`);
    file.close();
    expect(existsSync(file.path)).toBe(false);
  });

  it("can be read after it was removed", async () => {
    const file = new OutputFile(join(directory, "removed"));
    const writer = openSync(file.path, "w");
    rmSync(file.path);
    writeSync(writer, "still there");
    expect((await file.read()).toString()).toBe("still there");
    closeSync(writer);
    file.close();
  });
});
