/** The token of .dev.vars: how it is read, generated and replaced, and how the lines that `npm start` prints contain it. */
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { announce } from "../../cli/announce.ts";
import { readVariables } from "../../cli/dev-vars.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const repository = fileURLToPath(new URL("../..", import.meta.url));
let directory: string;
let file: string;

beforeAll(() => {
  directory = join(temporaryDirectory(), "it's $HOME");
  for (const path of ["package.json", "cli", "client", "local", "src"])
    cpSync(join(repository, path), join(directory, path), { recursive: true });
  for (const path of ["node_modules", "container", "scripts"])
    symlinkSync(join(repository, path), join(directory, path));
  file = join(directory, ".dev.vars");
});

/** Runs a printed line in a shell in another directory. Returns the header that the client receives. */
function headerOf(line: string): string {
  const clients = `show() { for word; do case $word in Authorization:*) printf %s "$word";; esac; done; }
    claude() { show "$@"; }; npx() { show "$@"; }`;
  return execFileSync("bash", ["-c", `${clients}; ${line}`], { cwd: "/", encoding: "utf8" });
}

describe("the token of .dev.vars", () => {
  it.each([
    ["SERVER_AUTH_TOKEN=plain-and-long-enough", "plain-and-long-enough"],
    ['SERVER_AUTH_TOKEN="in-double-quotes"', "in-double-quotes"],
    ["SERVER_AUTH_TOKEN='in-single-quotes'", "in-single-quotes"],
    ["export SERVER_AUTH_TOKEN=exported-by-a-shell", "exported-by-a-shell"],
    ['  export SERVER_AUTH_TOKEN = "exported-with-spaces"  ', "exported-with-spaces"],
    ["SERVER_AUTH_TOKEN=with-crlf-after-it\r\nLOG_LEVEL=warn\r", "with-crlf-after-it"],
    ['SERVER_AUTH_TOKEN="quoted-with-crlf"\r\nLOG_LEVEL=warn\r', "quoted-with-crlf"],
    [
      "# SERVER_AUTH_TOKEN=commented-out\nSERVER_AUTH_TOKEN=commented-behind # the owner's",
      "commented-behind",
    ],
    ["SERVER_AUTH_TOKEN=the-first-of-two\nSERVER_AUTH_TOKEN=the-last-of-them", "the-last-of-them"],
  ])("is read from a file with %j", (text, token) => {
    writeFileSync(file, `${text}\n`);
    expect(readVariables({}, file)).toMatchObject({ token, tokenSource: "file" });
  });

  it("is in each line that npm start prints for a shell, with any characters", () => {
    writeFileSync(file, "SERVER_AUTH_TOKEN='$(echo)\"quotes\"`in-it`\\'\n");
    const { token, tokenSource } = readVariables({}, file);
    const printed = announce({
      url: "http://127.0.0.1:1/mcp",
      token,
      tokenSource,
      file,
      showsToken: false,
      isVerbose: true,
      mounts: [],
    });
    const lines = printed.split("\n").filter((line) => /^ {2}(claude|npx) /.test(line));
    expect(lines.map(headerOf)).toEqual([`Authorization: Bearer ${token}`, `Authorization: Bearer ${token}`]);
    const [, config = ""] = /cursor:\S+&config=(\S+)/.exec(printed) ?? [];
    expect(JSON.parse(atob(decodeURIComponent(config)))).toEqual({ url: "http://127.0.0.1:1/mcp" });
  });
});

describe("npm run token", () => {
  const npmRunToken = (SERVER_AUTH_TOKEN?: string) =>
    execFileSync(process.execPath, ["cli/npm-script.mjs", "token", "show"], {
      cwd: directory,
      encoding: "utf8",
      stdio: "pipe",
      env: { ...process.env, SERVER_AUTH_TOKEN },
    });

  it.each(["SERVER_AUTH_TOKEN=that-of-the-file\n", "LOG_LEVEL=warn\n"])(
    "prints the token of the environment, not that of a file with %j",
    (text) => {
      writeFileSync(file, text);
      expect(npmRunToken(" of-the-environment ")).toBe("of-the-environment\n");
      expect(readFileSync(file, "utf8")).toBe(text);
    },
  );

  it("generates and keeps a token if there is none, so that no client gets an empty one", () => {
    writeFileSync(file, "LOG_LEVEL=warn\n");
    const printed = npmRunToken();
    expect(printed).toMatch(/^[\w-]{43}\n$/);
    expect(readVariables({}, file)).toMatchObject({ token: printed.trim(), tokenSource: "file" });
    expect(npmRunToken("")).toBe(printed);
  });

  it.each([
    ["a".repeat(32), /SERVER_AUTH_TOKEN must be random/],
    ["short", /SERVER_AUTH_TOKEN must be at least 16 characters/],
    ["of several words, with spaces", /SERVER_AUTH_TOKEN must be visible ASCII/],
  ])("prints an error if npm start refuses the token: %s", (token, words) => {
    rmSync(file, { force: true });
    expect(() => npmRunToken(token)).toThrow(
      expect.objectContaining({ status: 1, stdout: "", stderr: expect.stringMatching(words) }),
    );
  });

  it("prints the reason if the file cannot be read", () => {
    rmSync(file, { force: true });
    mkdirSync(file);
    expect(() => npmRunToken()).toThrow(/\.dev\.vars cannot be read/);
    rmSync(file, { recursive: true });
  });
});

describe("token rotate --write", () => {
  const UNTIL = "2999-01-01T00:00:00Z";
  const [before, now] = ["ab".repeat(32), "cd".repeat(32)];
  const entry = {
    name: "ci",
    sha256: now,
    scopes: ["tasks:run"],
    previous_sha256: before,
    previous_until: UNTIL,
  };
  const rotate = (...options: string[]) =>
    spawnSync(process.execPath, ["cli/main.ts", "token", "rotate", "--write", ...options], {
      cwd: directory,
      encoding: "utf8",
      env: { ...process.env, SERVER_AUTH_TOKEN: undefined, AUTH_TOKENS: undefined },
    });

  it("does not replace the only token that clients may have, except with --yes", () => {
    const text = `SERVER_AUTH_TOKEN=${now}
SERVER_AUTH_TOKEN_PREVIOUS=${before}
SERVER_AUTH_TOKEN_PREVIOUS_UNTIL=${UNTIL}
AUTH_TOKENS='${JSON.stringify([entry])}'
`;
    writeFileSync(file, text);
    for (const options of [[], ["--name", "ci"]])
      expect(rotate(...options)).toMatchObject({
        status: 64,
        stdout: "",
        stderr: expect.stringMatching(`valid until ${UNTIL}.*--yes`),
      });
    expect(readFileSync(file, "utf8")).toBe(text);
    expect(rotate("--yes")).toMatchObject({ status: 0 });
    expect(readFileSync(file, "utf8")).toContain(`SERVER_AUTH_TOKEN_PREVIOUS=${now}`);
  });
});
