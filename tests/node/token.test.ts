/** The lines that `npm start` prints, run in a shell: each carries the token that the server takes. */
import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { announce } from "../../cli/announce.ts";
import { readVariables } from "../../cli/variables.ts";

const repository = fileURLToPath(new URL("../..", import.meta.url));
let directory: string;
let file: string;

beforeAll(() => {
  directory = join(mkdtempSync(join(tmpdir(), "sandbox-mcp-token-")), "it's $HOME");
  for (const path of ["package.json", "cli", "src/server/variables.ts"])
    cpSync(join(repository, path), join(directory, path), { recursive: true });
  symlinkSync(join(repository, "node_modules"), join(directory, "node_modules"));
  file = join(directory, ".dev.vars");
});

afterAll(() => rmSync(join(directory, ".."), { recursive: true }));

/** The header that a printed line gives its client, typed in a shell that is somewhere else. */
function headerOf(line: string): string {
  const clients = `show() { for word; do case $word in Authorization:*) printf %s "$word";; esac; done; }
    claude() { show "$@"; }; npx() { show "$@"; }`;
  return execFileSync("bash", ["-c", `${clients}; ${line}`], { cwd: "/", encoding: "utf8" });
}

describe("a printed line carries the token from .dev.vars", () => {
  it.each([
    "SERVER_AUTH_TOKEN=plain",
    'SERVER_AUTH_TOKEN="in double quotes"',
    "SERVER_AUTH_TOKEN='in single quotes'",
    "export SERVER_AUTH_TOKEN=exported",
    '  export SERVER_AUTH_TOKEN = "exported with spaces"  ',
    "SERVER_AUTH_TOKEN=with-crlf\r\nLOG_LEVEL=warn\r",
    'SERVER_AUTH_TOKEN="quoted with crlf"\r\nLOG_LEVEL=warn\r',
    "# SERVER_AUTH_TOKEN=commented-out\nSERVER_AUTH_TOKEN=commented # the owner's",
    "SERVER_AUTH_TOKEN=first\nSERVER_AUTH_TOKEN=last",
    "SERVER_AUTH_TOKEN='$(echo) \"quotes\" `in it` \\'",
    "LOG_LEVEL=warn",
  ])("%j", (text) => {
    writeFileSync(file, `${text}\n`);
    const { token, tokenSource } = readVariables({}, file);
    const printed = announce({
      url: "http://127.0.0.1:1/mcp",
      token,
      tokenSource,
      file,
      showToken: false,
    });
    const lines = printed.split("\n").filter((line) => /^ {2}(claude|npx) /.test(line));
    expect(lines.map(headerOf)).toEqual([`Authorization: Bearer ${token}`, `Authorization: Bearer ${token}`]);
  });

  it("and says what is missing without one", () => {
    writeFileSync(file, "LOG_LEVEL=warn\n");
    const run = () =>
      execFileSync("npm", ["run", "-s", "token"], { cwd: directory, encoding: "utf8", stdio: "pipe" });
    expect(run).toThrow(/No SERVER_AUTH_TOKEN in .*\.dev\.vars: npm start keeps one there/);
  });
});
