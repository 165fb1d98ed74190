/**
 * `npm run owner -- <name>` replaces OWNER with the GitHub user or organization that publishes. With --check, it names the files
 * that still have OWNER and exits with 1. `npm publish` runs this check.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const FILES = ["package.json", "server.json", "README.md", "docs/start/quick-start.md"];
const PLACES = /(?<=io\.github\.|github\.com\/)OWNER(?=\/sandbox-mcp\b)/g;

const [word = ""] = process.argv.slice(2);
const files = FILES.map((name) => ({ name, text: readFileSync(join(root, name), "utf8") })).filter(
  ({ text }) => text.search(PLACES) >= 0,
);
const names = files.map(({ name }) => name).join(", ");

if (word === "--check") {
  if (files.length > 0) {
    console.error(`Replace OWNER in ${names}: npm run owner -- <GitHub user or organization>.`);
    process.exitCode = 1;
  }
} else if (!/^[a-z\d](?:[a-z\d-]{0,37}[a-z\d])?$/i.test(word)) {
  console.error("usage: npm run owner -- <GitHub user or organization>");
  process.exitCode = 64;
} else {
  for (const { name, text } of files) writeFileSync(join(root, name), text.replace(PLACES, word));
  console.log(files.length > 0 ? `Written to ${names}.` : "OWNER is replaced everywhere.");
}
