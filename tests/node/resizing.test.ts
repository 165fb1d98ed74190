/** The command line sends the size of the user's terminal to the terminal in the sandbox. */
import { expect, it } from "vitest";
import { Resizing } from "../../src/shared/terminal/size.ts";
import { sleep, until } from "../setup/until.ts";

it("a terminal's new size is sent again after a failed call, until resizing is stopped", async () => {
  const passed: number[] = [];
  let failures = 2;
  let rows = 50;
  const resizing = new Resizing(
    () => ({ rows, columns: 90 }),
    async (size) => {
      passed.push(size.rows);
      if (failures-- > 0) throw new Error("the connection broke");
    },
  );
  resizing.start();
  await until(() => passed.length === 3);
  failures = Infinity;
  rows = 60;
  resizing.start();
  await until(() => passed.length === 4);
  resizing.stop();
  await sleep(700);
  expect(passed).toEqual([50, 50, 50, 60]);
});
