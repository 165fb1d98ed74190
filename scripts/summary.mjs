// Prints `N passed, N failed` from vitest's JSON report. A test file that fails as a whole counts as one failure more.
// Plain JavaScript, so that it runs on whatever Node there is. Exits with 1 when there is no report.
import { existsSync, readFileSync } from "node:fs";

const [file] = process.argv.slice(2);
if (!existsSync(file)) {
  console.log("No test ran.");
  process.exit(1);
}
const { numPassedTests, numFailedTests, testResults } = JSON.parse(readFileSync(file, "utf8"));
const broken = testResults.filter(
  ({ status, assertionResults }) =>
    status === "failed" && !assertionResults.some((assertion) => assertion.status === "failed"),
);
console.log(`${numPassedTests} passed, ${numFailedTests + broken.length} failed`);
