/** What the engine reads of control groups, here plain directories. */
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { groupsWith } from "../../local/engine/group-use.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

it("the engine looks for a group's file again until it has found it", () => {
  const [group, other] = [temporaryDirectory(), temporaryDirectory()];
  const groups = [group, other];
  expect(groupsWith("pids.current", groups)).toEqual([]);
  writeFileSync(join(group, "pids.current"), "1");
  expect(groupsWith("pids.current", groups)).toEqual([group]);
  rmSync(join(group, "pids.current"));
  expect(groupsWith("pids.current", groups)).toEqual([group]);
});
