/** The folder of objects, as earlier versions of the server left it. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { moveObjects } from "../../cli/move-objects.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

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
