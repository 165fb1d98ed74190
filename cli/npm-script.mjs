/** The program of `npm start` and `npm run cli`. Plain JavaScript, because the user's own Node runs it before `npm ci`. */
import { existsSync } from "node:fs";

if (existsSync(new URL("../node_modules/.package-lock.json", import.meta.url))) await import("./main.ts");
else {
  console.error("The packages of this clone are not installed. Run: npm ci");
  process.exitCode = 1;
}
