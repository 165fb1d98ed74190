/** What `npm start` stores: the build of the Worker, which it uses while nothing has changed, and objects of earlier versions. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { bundle } from "../../cli/bundle.ts";
import { UserError } from "../../cli/exit.ts";
import { moveObjects } from "../../cli/move-objects.ts";
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

it("objects of an earlier version move into the folders of their runs and saves, once", async () => {
  const directory = temporaryDirectory();
  const moved = {
    "hash,work.01m2k5,log,000000": "hash,work.01m2k5/log,000000",
    "hash,work.01m2k5,artifacts,000": "hash,work.01m2k5/artifacts,000",
    "hash,workspaces,3f-1,pack.00000": "hash,workspaces,3f-1/pack.00000",
    "hash,workspaces,3f-1,manifest.00000": "hash,workspaces,3f-1/manifest.00000",
  };
  for (const name of Object.keys(moved)) writeFileSync(join(directory, name), name);
  mkdirSync(join(directory, "hash,new.01m2k6"));
  writeFileSync(join(directory, "hash,new.01m2k6/log,000000"), "new");
  writeFileSync(join(directory, "not-an-object"), "other");
  await moveObjects(directory);
  await moveObjects(directory);
  for (const [name, path] of Object.entries(moved))
    expect(readFileSync(join(directory, path), "utf8")).toBe(name);
  expect(readFileSync(join(directory, "hash,new.01m2k6/log,000000"), "utf8")).toBe("new");
  expect(readFileSync(join(directory, "not-an-object"), "utf8")).toBe("other");
});
