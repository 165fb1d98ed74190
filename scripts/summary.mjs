// Reads vitest's JSON reports. `summary.mjs REPORT [AGAIN]` prints `N passed, N failed` and the skipped tests; the files of the
// second report replace the same files of the first. `summary.mjs --failed REPORT` prints the files that failed, if they are few.
// A test file that fails as a whole counts as one more failure. Plain JavaScript, so that it runs on any version of Node. Exits
// with 1 if there is no report, or a test failed.
import { existsSync, readFileSync } from "node:fs";
import { relative } from "node:path";

/** If more files fail, the cause is not chance. */
const FEW = 3;

/** The files of a report by their path. */
function filesOf(report) {
  if (!existsSync(report)) {
    console.error("No test ran.");
    process.exit(1);
  }
  const { testResults } = JSON.parse(readFileSync(report, "utf8"));
  return new Map(testResults.map((file) => [relative(process.cwd(), file.name), file]));
}

/** A test is pending if it never ended, because its process ended first. */
const STATUSES = {
  passed: ["passed"],
  failed: ["failed", "pending"],
  skipped: ["skipped", "todo", "disabled"],
};

/**
 * The full names of the tests that passed, failed or were skipped. A file that failed as a whole, without a failed test, counts as
 * one test.
 */
function testsOf({ status, assertionResults }, wanted) {
  const tests = assertionResults.filter((test) => STATUSES[wanted].includes(test.status));
  const isBroken = wanted === "failed" && status === "failed" && tests.length === 0;
  return isBroken ? ["the file as a whole"] : tests.map(({ fullName }) => fullName);
}

if (process.argv[2] === "--failed") {
  const failed = [...filesOf(process.argv[3])].filter(([, file]) => testsOf(file, "failed").length > 0);
  if (failed.length <= FEW) for (const [path] of failed) console.log(path);
} else {
  const [first, again = new Map()] = process.argv.slice(2).map(filesOf);
  for (const [path, file] of again) {
    const stillFailed = new Set(testsOf(file, "failed"));
    for (const name of testsOf(first.get(path) ?? file, "failed"))
      if (!stillFailed.has(name)) console.log(`unsteady: ${path} > ${name}: failed, and passed alone`);
  }
  const files = [...new Map([...first, ...again])];
  const namesOf = (status) =>
    files.flatMap(([path, file]) => testsOf(file, status).map((name) => `${path} > ${name}`));
  const failed = namesOf("failed").length;
  const skipped = namesOf("skipped");
  const named = skipped.length > 0 ? `, ${skipped.length} skipped: ${skipped.join("; ")}` : "";
  console.log(`${namesOf("passed").length} passed, ${failed} failed${named}`);
  if (failed > 0) process.exit(1);
}
