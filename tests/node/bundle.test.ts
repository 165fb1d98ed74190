/** What `npm start` stores: the build of the Worker while nothing has changed, and databases. */
import { mkdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, expect, it, onTestFinished } from "vitest";
import { bundle } from "../../cli/bundle.ts";
import { UserError } from "../../cli/exit.ts";
import { shrinkDatabases } from "../../cli/shrink-databases.ts";
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

describe("when the server starts", () => {
  const data = temporaryDirectory();
  const place = join(data, "do/sandbox-mcp-local-Sandbox");
  mkdirSync(place, { recursive: true });
  const sizeOf = (name: string) => statSync(join(place, name)).size;
  const megabyte = 1024 * 1024;

  /** Makes a database, stores megabytes in it, and deletes some of them. */
  function makeDatabase(name: string, stored: number, deleted: number): void {
    const database = new DatabaseSync(join(place, name));
    database.exec("PRAGMA journal_mode=WAL; CREATE TABLE results (number INTEGER PRIMARY KEY, output BLOB)");
    const insert = database.prepare(`INSERT INTO results VALUES (?, zeroblob(${megabyte}))`);
    for (let number = 1; number <= stored; number++) insert.run(number);
    database.prepare("DELETE FROM results WHERE number <= ?").run(deleted);
    database.close();
  }

  it("the databases of destroyed sandboxes give their disk space back, and keep what is in them", () => {
    makeDatabase("destroyed.sqlite", 12, 11);
    makeDatabase("used.sqlite", 12, 5);
    makeDatabase("small.sqlite", 3, 3);
    writeFileSync(join(place, "damaged.sqlite"), Buffer.alloc(100, 0xff));
    writeFileSync(join(place, "empty.sqlite"), "");
    const before = ["used.sqlite", "small.sqlite", "damaged.sqlite", "empty.sqlite"].map(sizeOf);
    shrinkDatabases(data);
    expect(sizeOf("destroyed.sqlite")).toBeLessThan(2 * megabyte);
    expect(["used.sqlite", "small.sqlite", "damaged.sqlite", "empty.sqlite"].map(sizeOf)).toEqual(before);
    const database = new DatabaseSync(join(place, "destroyed.sqlite"));
    expect(database.prepare("SELECT number, length(output) AS bytes FROM results").all()).toEqual([
      { number: 12, bytes: megabyte },
    ]);
    database.close();
  });

  it("a missing directory of databases is no error", () => {
    expect(() => shrinkDatabases(temporaryDirectory())).not.toThrow();
  });
});
