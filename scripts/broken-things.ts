/** Makes the tables of faults in docs/internals/reliability.md from the names of tests; `npm run docs` writes them. */
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

interface Row {
  broken: string;
  holds: string;
  file: string;
}

/** The beginning of a block or a test, with its name. In a test with cases, the name follows the cases. */
const OPENS = /^\s*(describe|it)(?:\.concurrent)?(?:\.runIf\(\w+\))?(?:\(\s*"((?:[^"\\]|\\.)*)"|\.each\b)/;
/** The name after the cases, on their last line or on the one below. */
const AFTER_CASES =
  /\](?: as const)?\)\((?:"((?:[^"\\]|\\.)*)"|$)|^\s*(?:describe|it)\.each\(\w+\)\((?:"((?:[^"\\]|\\.)*)"|$)/;
/** A name on a separate line. */
const NAME_ALONE = /^\s*"((?:[^"\\]|\\.)*)",$/;

/** Finds names in a file line by line, because the formatter puts each on a separate line. */
function rowsOf(file: string): Row[] {
  const lines = readFileSync(join(root, file), "utf8").split("\n");
  const rows: Row[] = [];
  /** The names of the blocks that enclose a line, by their indentation. */
  let blocks: { indent: number; name: string }[] = [];
  let indent = 0;
  let waiting: string | undefined;
  let isNext = false;
  for (const line of lines) {
    const [, kind, named] = OPENS.exec(line) ?? [];
    if (kind !== undefined) indent = line.search(/\S/);
    waiting = kind ?? waiting;
    if (waiting === undefined) continue;
    const after = AFTER_CASES.exec(line);
    const name = named ?? after?.[1] ?? after?.[2] ?? (isNext ? NAME_ALONE.exec(line)?.[1] : undefined);
    isNext = after !== null;
    if (name === undefined) continue;
    blocks = blocks.filter((block) => block.indent < indent);
    if (waiting === "describe") blocks.push({ indent, name });
    else rows.push({ broken: blocks.at(-1)?.name ?? "", holds: name, file });
    waiting = undefined;
  }
  const tests = lines.filter((line) => /^\s*it(\.runIf\(\w+\))?(\.each)?\(/.test(line)).length;
  if (rows.length !== tests) throw new Error(`${file}: ${rows.length} names of ${tests} tests were found`);
  return rows;
}

function files(directory: string): string[] {
  return readdirSync(join(root, directory))
    .filter((name) => name.endsWith(".test.ts"))
    .map((name) => `${directory}/${name}`);
}

/** A row for each file of tests, with what its tests break. It leaves out the cases of a test, which follow the test's name. */
function table(rows: readonly Row[]): string {
  const shown = (text: string) => text.replace(/: [^:]*(?:%[sj]|\$\w+)[^:]*$/, "").replaceAll('\\"', '"');
  const lines = [...Map.groupBy(rows, ({ file }) => file)].map(([file, tests]) => {
    const faults = new Set(tests.map(({ broken }) => shown(broken.replace(/^when /, ""))));
    return `| [${file.replace("tests/", "")}](../../${file}) | ${[...faults].filter(Boolean).join("; ")} |`;
  });
  return ["| tests | when |", "| --- | --- |", ...lines].join("\n");
}

/** The two tables, with what each block of tests breaks. */
export function brokenThings(): { faults: string; hostile: string } {
  const own = ["tests/faults", "tests/faults/actor"].flatMap(files).flatMap(rowsOf);
  const ofTasks = TASKS.flatMap(rowsOf).filter(({ broken }) => ELSEWHERE.has(broken));
  return { faults: table([...own, ...ofTasks]), hostile: table(files("tests/hostile").flatMap(rowsOf)) };
}
