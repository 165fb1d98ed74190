/** The soak in its short form. SOAK_MINUTES sets a longer time. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

it("many clients get correct results from mixed tools, and no resource use grows from the first quarter to the last", async () => {
  // Files and not pipes: a process that stays behind after a failure would keep a pipe open.
  const directory = mkdtempSync(join(tmpdir(), "sandbox-mcp-soak-out-"));
  const [outputFile, errorsFile] = ["out", "err"].map((name) => join(directory, name)) as [string, string];
  const script = fileURLToPath(new URL("soak.ts", import.meta.url));
  const soak = spawn(process.execPath, [script], {
    // A shorter time than the default of `npm run soak`, because the soak keeps all processors busy.
    env: { ...process.env, SOAK_MINUTES: process.env.SOAK_MINUTES ?? "0.05" },
    stdio: ["ignore", openSync(outputFile, "w"), openSync(errorsFile, "w")],
  });
  const [code] = await once(soak, "exit");
  const text = { output: readFileSync(outputFile, "utf8"), errors: readFileSync(errorsFile, "utf8") };
  rmSync(directory, { recursive: true });
  console.log(text.output);
  expect(text.output, text.errors).toMatch(
    /^[1-9]\d* calls by \d+ clients in [\d.]+ minutes, 0 wrong answers$/m,
  );
  expect(code, text.errors).toBe(0);
});
