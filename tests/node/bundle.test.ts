/** The saved build of the Worker, which `npm start` uses while nothing has changed. */
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { bundle } from "../../cli/bundle.ts";
import { UserError } from "../../cli/exit.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

/** A Worker and its configuration. Returns the configuration's path. */
function workerIn(directory: string, source: string): string {
  const config = join(directory, "wrangler.jsonc");
  writeFileSync(config, '{ "name": "kept", "main": "main.js", "compatibility_date": "2026-09-01" }');
  writeFileSync(join(directory, "main.js"), source);
  return config;
}

it("a saved build has the settings of its configuration, and no secret of .dev.vars", async () => {
  const directory = temporaryDirectory();
  const build = temporaryDirectory();
  onTestFinished(() => [directory, build].forEach((path) => rmSync(path, { recursive: true, force: true })));
  const config = workerIn(directory, "export default {};\n");
  writeFileSync(join(directory, ".dev.vars"), "SECRET=of-dev-vars\n");
  for (const time of ["built", "kept"]) {
    const { settings } = await bundle(config, build);
    expect(settings, time).toMatchObject({ name: "kept", worker: { compatibilityDate: "2026-09-01" } });
    expect(JSON.stringify(settings), time).not.toContain("of-dev-vars");
  }
});

it("an error explains that wrangler's directory cannot be written", async () => {
  const directory = temporaryDirectory();
  const config = workerIn(directory, "export default {};\n");
  // Nobody can create a directory below a file, not even root.
  writeFileSync(join(directory, ".wrangler"), "");
  const error = await bundle(config, join(directory, "build")).catch((caught: unknown) => caught);
  expect(error).toBeInstanceOf(UserError);
  expect(String(error)).toMatch(/\.wrangler\/tmp, which cannot be written .*chown/);
});
