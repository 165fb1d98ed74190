/**
 * Options that `npm start` refuses, its error if `--` was missing, so that npm took options for itself, and state directories in
 * use.
 */
import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { expect, it } from "vitest";
import { lockDirectory } from "../../cli/lock.ts";
import { readOptions } from "../../cli/options.ts";
import { withShortPath } from "../../local/engine/host-files.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

it.each([
  ["--port 9498 --state-dir X", { port: "true", state_dir: "true" }, ["9498", "X"]],
  ["--port 9498 --state-dir X", { port: "true", state_dir: "true" }, ["X", "9498"]],
  ["--port 9498 --state-dir X", { port: "9498", state_dir: "X" }, []],
  ["--port 9498 --state-dir X --verbose", { port: "true" }, ["9498", "--state-dir", "X", "--verbose"]],
  [
    "--port 0 --network none --mount a --mount b=c:ro",
    { mount: "true\n\ntrue", network: "true", port: "true" },
    ["a", "0", "none", "b=c:ro"],
  ],
  ["--state-dir 'it'\\''s $HOME'", { state_dir: "true" }, ["it's $HOME"]],
  ["--port 1 --python /p", { port: "true", python: "true" }, ["1", "/p"]],
  ["--json", { json: "true" }, []],
  ["--port 1 --open --json", { json: "true", open: "true", port: "true" }, ["1"]],
  // The server cannot know which value belongs to which option.
  [
    "--port 1 --state-dir <value> --mount <value>",
    { port: "true", state_dir: "true", mount: "true" },
    ["a", "b", "1"],
  ],
])("the error for options that npm took shows the right command line: %s", (line, taken, words) => {
  const env = Object.fromEntries(Object.entries(taken).map(([name, value]) => [`npm_config_${name}`, value]));
  expect(() => readOptions(words, env, "/")).toThrow(
    expect.objectContaining({
      message: expect.stringMatching(
        /^npm used --[^.]* for itself\. Put -- before all options: npm start -- /,
      ),
    }),
  );
  expect(() => readOptions(words, env, "/")).toThrow(`npm start -- ${line}`);
});

it.each([
  [[], { PORT: "http" }, /^PORT must be a port number/],
  [["--network", "lan"], {}, /--network must be one of internet, none/],
  [["--isolation", "docker"], {}, /--isolation must be one of bubblewrap, none/],
  [["--prot", "1"], {}, /^Unknown option '--prot'[^\n]*\. npm start -- --help lists the options\.$/],
  [
    [],
    { npm_config_port: "9000" },
    /npm used --port for itself. Put -- before all options: npm start -- --port 9000/,
  ],
])("npm start refuses the options %j with the environment %j", (words, env, message) => {
  expect(() => readOptions(words, env, "/")).toThrow(message);
});

it("a state directory is in use as long as an engine listens there, also in another network namespace", async () => {
  // Longer than a socket's address may be.
  const directory = join(temporaryDirectory(), "x".repeat(110));
  mkdirSync(directory);
  const socket = join(directory, "engine.sock");
  const engine = createServer();
  await withShortPath(socket, async (path) => void (await once(engine.listen(path), "listening")));
  await expect(lockDirectory(directory, socket)).rejects.toThrow("Another server is using");
  engine.close();
  const other = temporaryDirectory();
  await lockDirectory(other, join(other, "engine.sock"));
});
