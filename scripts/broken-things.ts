/** Makes the tables of faults in docs/internals/reliability.md from the names of blocks of tests; `npm run docs` writes them. */
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { root } from "../cli/program-files.ts";

/** Blocks of tests in the files of TASKS that break something. They are in these files because they need an agent. */
const ELSEWHERE = new Set([
  "when the server is killed in the middle of a task",
  "when sandboxd is killed before a task's agent starts and after it has ended",
  "when a task does not succeed",
  "when a task's actor is evicted",
  "when a task's container dies",
]);
const TASKS = ["tests/e2e/tasks.test.ts", "tests/worker/tasks/tasks.test.ts"];

/** The beginning of a block, with its name. */
const BLOCK = /^ *describe[^"]*?\(\s*"((?:[^"\\]|\\.)*)"/gm;

function blocksOf(file: string): string[] {
  const text = readFileSync(join(root, file), "utf8");
  const blocks = Array.from(text.matchAll(BLOCK), ([, name = ""]) => name);
  const count = text.match(/^ *describe\b/gm)?.length ?? 0;
  if (blocks.length !== count)
    throw new Error(`${file}: ${blocks.length} names of ${count} blocks were found`);
  return blocks;
}

function filesIn(directory: string): string[] {
  return readdirSync(join(root, directory))
    .filter((name) => name.endsWith(".test.ts"))
    .map((name) => `${directory}/${name}`);
}

/** A row for each file of tests, with what its tests break. It leaves out the cases of a block, which follow the block's name. */
function table(files: readonly string[]): string {
  const shown = (name: string) =>
    name
      .replace(/^when /, "")
      .replace(/: [^:]*(?:%[sj]|\$\w+)[^:]*$/, "")
      .replaceAll('\\"', '"');
  const lines = files.map((file) => {
    const blocks = blocksOf(file).filter((name) => !TASKS.includes(file) || ELSEWHERE.has(name));
    const faults = new Set(blocks.map(shown));
    return `| [${file.replace("tests/", "")}](../../${file}) | ${[...faults].join("; ")} |`;
  });
  return ["| tests | when |", "| --- | --- |", ...lines].join("\n");
}

/** The two tables, with what each block of tests breaks. */
export function brokenThings(): { faults: string; hostile: string } {
  const faults = [...["tests/faults", "tests/faults/actor"].flatMap(filesIn), ...TASKS];
  return { faults: table(faults), hostile: table(filesIn("tests/hostile")) };
}
