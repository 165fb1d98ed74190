/** The soak in its short form; SOAK_MINUTES says how long. */
import { spawn } from "node:child_process";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

it("mixed tools from many clients: no wrong answer, and nothing grows from the first quarter to the last", async () => {
  const soak = spawn(process.execPath, [fileURLToPath(new URL("soak.ts", import.meta.url))]);
  const exit = new Promise((resolve) => soak.on("exit", resolve));
  const [said, complaints] = await Promise.all([text(soak.stdout), text(soak.stderr)]);
  console.log(said);
  expect(said, complaints).toMatch(/^[1-9]\d* calls by \d+ clients in [\d.]+ minutes, 0 wrong answers$/m);
  expect(await exit, complaints).toBe(0);
});
