/** `npm test` on a machine that lacks what the tests need: it brings it, or says how, before anything runs. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { npm, without } from "../setup/server.ts";

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "sandbox-mcp-requirements-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

/** `npm test` where Chromium is missing; `--help` is what the runner is asked for, should it come to that. */
async function npmTest(user: number, more: string[] = []) {
  const CHROMIUM_PATH = join(directory, "chromium");
  const within = [...without("chromium", user), ...more];
  const command = npm(["test", "--", "--help"], { within, env: { CHROMIUM_PATH } });
  const status = await command.exited;
  return { status, stdout: command.stdout(), stderr: command.stderr() };
}

/** An apt-get that knows no package before it is updated, and then installs Chromium. */
function aptGet(): string[] {
  const file = join(directory, "apt-get");
  const script = `#!/bin/sh
echo "$*" >>${directory}/said
case "$*" in
  *update*) touch ${directory}/updated ;;
  *install*) [ -e ${directory}/updated ] || exit 100; echo "#!/bin/sh" >${directory}/chromium; chmod +x ${directory}/chromium ;;
esac
`;
  writeFileSync(file, script, { mode: 0o755 });
  return ["--ro-bind", file, "/usr/bin/apt-get"];
}

it("the one command to type is all that a user is told who is not root", async () => {
  const { status, stdout, stderr } = await npmTest(1000);
  expect(status).toBe(1);
  expect(stderr).toContain("The tests need what is missing here: Chromium.");
  expect(stderr).toMatch(/^ {2}sudo apt-get update && sudo apt-get install \S.* chromium$/m);
  expect(stdout).not.toContain("vitest/");
});

it("root has it installed, which is said, and the tests run", async () => {
  const { status, stdout, stderr } = await npmTest(0, aptGet());
  expect(stderr).toMatch(/^Installing what the tests need, with apt-get: chromium$/m);
  expect(readFileSync(join(directory, "said"), "utf8")).toMatch(
    /install .*\n.*update\n.*install .* chromium\n$/,
  );
  expect(stdout).toContain("vitest/");
  expect(status).toBe(0);
});

it("an installation that does not help is told with what apt-get said, and no test runs", async () => {
  const file = join(directory, "apt-get");
  writeFileSync(file, "#!/bin/sh\necho 'E: no such package' >&2\nexit 100\n", { mode: 0o755 });
  const { status, stdout, stderr } = await npmTest(0, ["--ro-bind", file, "/usr/bin/apt-get"]);
  expect(status).toBe(1);
  expect(stderr).toMatch(/missing here: Chromium\.[^]*E: no such package/);
  expect(stdout).not.toContain("vitest/");
});
