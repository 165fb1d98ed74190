import { describe, expect, it } from "vitest";
import { LANGUAGE_FACTS } from "../../setup/languages.ts";
import { callsIn, evict, killContainer, owner, principal, type Result, sh, until } from "../support.ts";

const configure = (sandbox: string, env?: Record<string, string>): Promise<Result> =>
  owner.call("configure_sandbox", { sandbox, ...(env && { env }) });

const LANGUAGES = Object.entries(LANGUAGE_FACTS).map(
  ([language, { printVariable }]) => [language, printVariable] as const,
);

const runInKernel = async (sandbox: string, language: string, code: string): Promise<string> => {
  const { text } = await callsIn(sandbox).code(code, { language });
  return text.replace(/^stdout:\s/, "").trim();
};

const HOSTILE: Record<string, string> = {
  LINES: "two\nlines\n\nand more\n",
  QUOTES: `'"\`$(touch /tmp/ran) $HOME \\ ' " !! {a,b} *`,
  END: "'; exit 3; '",
  CONTROL: "\u0001\u001b[31m\r\t\u007f",
  SIGNS: "ü € 😀 \u2028",
  LONG: "x".repeat(32_768),
  EQUALS: "a=b=c",
  constructor: "own",
};

describe("variables of a sandbox", () => {
  it("reach commands, sessions and kernels, also running ones from the next call on", async () => {
    const sandbox = "vars";
    await configure(sandbox, { BEFORE: "1" });
    expect(await sh(sandbox, "echo $BEFORE")).toBe("1\n");
    for (const [language, code] of LANGUAGES)
      expect(await runInKernel(sandbox, language, code("BEFORE"))).toBe("1");
    const { structured } = await configure(sandbox, { BEFORE: "2", LATER: "a b" });
    expect(structured.variables).toEqual(["BEFORE", "LATER"]);
    for (const session of ["main", "other"])
      expect(await sh(sandbox, 'echo "$BEFORE $LATER"', { session })).toBe("2 a b\n");
    expect(
      await sh(sandbox, "bash -c 'echo $LATER'; python3 -c 'import os; print(os.environ[\"LATER\"])'"),
    ).toBe("a b\na b\n");
    for (const [language, code] of LANGUAGES) {
      expect(await runInKernel(sandbox, language, code("BEFORE"))).toBe("2");
      expect(await runInKernel(sandbox, language, code("LATER"))).toBe("a b");
    }
    // An empty value removes a variable, and the others stay.
    expect((await configure(sandbox, { BEFORE: "" })).structured.variables).toEqual(["LATER"]);
    expect(await sh(sandbox, "echo $LATER ${BEFORE-none}")).toBe("a b none\n");
    for (const [language, code] of LANGUAGES) {
      expect(await runInKernel(sandbox, language, code("BEFORE"))).toBe("None");
      expect(await runInKernel(sandbox, language, code("LATER"))).toBe("a b");
    }
  });

  it("arrive unchanged, with any content; one named __proto__ is ignored", async () => {
    const sandbox = "vars";
    const env = JSON.parse('{"__proto__": "x", "LATER": ""}') as Record<string, string>;
    await configure(sandbox, env);
    const { isError, structured } = await configure(sandbox, HOSTILE);
    expect([isError, structured.variables]).toEqual([false, Object.keys(HOSTILE).sort()]);
    await owner.call("write_file", { sandbox, path: "expected", content: JSON.stringify(HOSTILE) });
    const python =
      'import os, json; print([n for n, v in json.load(open("/workspace/expected")).items() if os.environ.get(n) != v])';
    // The second command gets them from the state that the first one saved.
    for (let time = 0; time < 2; time++) expect(await sh(sandbox, `python3 -c '${python}'`)).toBe("[]\n");
    expect(await runInKernel(sandbox, "python", python)).toBe("[]");
    const js =
      'Object.entries(JSON.parse(require("fs").readFileSync("/workspace/expected", "utf8"))).filter(([n, v]) => process.env[n] !== v)';
    expect(await runInKernel(sandbox, "javascript", js)).toContain("[]");
    expect(await sh(sandbox, "ls /tmp")).not.toContain("ran");
    expect(await sh(sandbox, "env | grep -c proto || true")).toBe("0\n");
  });

  it("are overridden by later settings of a session or a kernel, and by env of a call", async () => {
    const sandbox = "vars-own";
    await configure(sandbox, { WORD: "sandbox", OTHER: "1" });
    expect(await sh(sandbox, "echo $WORD", { env: { WORD: "call" } })).toBe("call\n");
    expect(await sh(sandbox, "echo $WORD; export WORD=session")).toBe("sandbox\n");
    await runInKernel(sandbox, "python", "import os; os.environ['WORD'] = 'kernel'");
    await configure(sandbox, { OTHER: "2" });
    expect(await sh(sandbox, "echo $WORD $OTHER")).toBe("session 2\n");
    expect(await runInKernel(sandbox, "python", "print(os.environ['WORD'], os.environ['OTHER'])")).toBe(
      "kernel 2",
    );
    await configure(sandbox, { WORD: "again" });
    expect(await sh(sandbox, "echo $WORD")).toBe("again\n");
    expect(await runInKernel(sandbox, "python", "print(os.environ['WORD'])")).toBe("again");
  });

  it("keep their value in a session that made them readonly, and do not run code that a session puts into SANDBOX_MCP_VARIABLES", async () => {
    const sandbox = "vars-own";
    await configure(sandbox, { FIXED: "1" });
    await sh(sandbox, "declare -rx FIXED");
    await sh(sandbox, "export SANDBOX_MCP_VARIABLES='a[$(touch /tmp/evaluated)]'", { session: "spoiled" });
    await configure(sandbox, { FIXED: "2", FREE: "2" });
    const { structured } = await callsIn(sandbox).command("echo $FIXED $FREE");
    expect(structured).toMatchObject({ stdout: "1 2\n", stderr: "" });
    expect(
      await sh(sandbox, "echo $FIXED $FREE; ls /tmp/evaluated 2>&1 | tail -c 10", { session: "spoiled" }),
    ).toContain("2 2\n");
    expect(await sh(sandbox, "ls /tmp")).not.toContain("evaluated");
    await runInKernel(sandbox, "python", "import os; os.environ = None");
    await configure(sandbox, { FREE: "3" });
    expect(await runInKernel(sandbox, "python", "1 + 1")).toContain("2");
  });

  it.each([
    ["a NUL", { A: "a\0b" }, "NUL"],
    ["half of a surrogate pair", { A: "\ud800" }, "surrogate"],
    ["a megabyte", { A: "x".repeat(2 ** 20) }, "longer than 122880 bytes"],
    ["a name with an equals sign", { "A=B": "x" }, "letters, digits and _"],
    ["a name with a line break", { "A\n": "x" }, "letters, digits and _"],
    ["an empty name", { "": "x" }, "letters, digits and _"],
    ["BASH_ENV", { BASH_ENV: "/tmp/x" }, "uses itself"],
    ["a readonly name of bash", { SHELLOPTS: "x" }, "uses itself"],
    ["a name that the server uses", { SANDBOX_MCP_RUN: "x" }, "uses itself"],
    ["101 names", Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`N${i}`, "x"])), "102 variables"],
    ["64 KiB", { A: "x".repeat(30_000), B: "x".repeat(30_000), C: "x".repeat(6_000) }, "65536 bytes"],
  ])("are refused with %s, and nothing is changed", async (_what, env, words) => {
    const sandbox = "vars-refused";
    await configure(sandbox, { THERE: "1" });
    const refused = await configure(sandbox, { ...env, ALSO: "1" });
    expect([refused.isError, refused.text]).toEqual([true, expect.stringContaining(words)]);
    expect((await configure(sandbox)).structured.variables).toEqual(["THERE"]);
  });

  it("stay after the actor and the container end, and end with the sandbox", async () => {
    const sandbox = "vars-life";
    await configure(sandbox, { STAYS: "1", OLD: "1" });
    await runInKernel(sandbox, "python", "import os");
    await sh(sandbox, "true");
    await evict(sandbox);
    expect(await runInKernel(sandbox, "python", "print(os.environ['STAYS'])")).toBe("1");
    await configure(sandbox, { STAYS: "2", OLD: "" });
    expect(await runInKernel(sandbox, "python", "print(os.environ['STAYS'])")).toBe("2");
    await killContainer(sandbox);
    await until(async () => (await callsIn(sandbox).command("true")).text.includes("restarted"));
    expect(await sh(sandbox, "echo $STAYS ${OLD-none}")).toBe("2 none\n");
    expect(await runInKernel(sandbox, "python", "import os; print(os.environ['STAYS'])")).toBe("2");
    await owner.call("destroy_sandbox", { sandbox });
    expect(await sh(sandbox, "echo ${STAYS-none}")).toBe("none\n");
    expect((await configure(sandbox)).structured.variables).toEqual([]);
  });

  it("belong to one sandbox of one principal, and are listed only by name", async () => {
    await configure("vars-mine", { MINE: "value-of-mine" });
    expect(await sh("vars-own", "echo ${MINE-none}")).toBe("none\n");
    const other = await principal("vars-other");
    const result = await other.call("run_command", { sandbox: "vars-mine", command: "echo ${MINE-none}" });
    expect(result.structured.stdout).toBe("none\n");
    expect((await other.call("list_sandboxes")).text).not.toContain("MINE");
    const { text } = await owner.call("list_sandboxes");
    expect(text).toMatch(/vars-mine: stopped.*\n {2}variables: MINE\n/);
    expect(text).not.toContain("value-of-mine");
  });

  it("are listed only for the sandboxes that were used last, if they are too many for one list", async () => {
    const caller = await principal("vars-many");
    const env = Object.fromEntries(Array.from({ length: 64 }, (_, n) => [`N${n}_${"x".repeat(990)}`, "x"]));
    for (let n = 1; n <= 6; n++) await caller.call("configure_sandbox", { sandbox: `many-${n}`, env });
    const { text, structured } = await caller.call("list_sandboxes");
    const sandboxes = structured.sandboxes as { name: string; variables?: string[] }[];
    expect(sandboxes.map(({ name, variables }) => [name, variables?.length])).toEqual([
      ["many-6", 64],
      ["many-5", 64],
      ["many-4", 64],
      ["many-3", 64],
      ["many-2", undefined],
      ["many-1", undefined],
    ]);
    expect(text).toContain("variables and network access of the last 2 sandboxes above");
  });

  it("create their sandbox, which counts in the quota until it is destroyed", async () => {
    const caller = await principal("vars-few");
    await caller.call("configure_sandbox", { sandbox: "one", env: { A: "1" } });
    expect((await caller.call("list_sandboxes")).text).toContain("Used: 1/");
    expect((await caller.call("destroy_sandbox", { sandbox: "one" })).structured.existed).toBe(true);
    expect((await caller.call("list_sandboxes")).text).toContain("Used: 0/");
    expect((await caller.call("configure_sandbox", { sandbox: "one" })).structured.variables).toEqual([]);
  });

  it("need sandbox:exec", async () => {
    const reader = await principal("vars-reader", ["sandbox:read", "sandbox:write"]);
    expect((await reader.call("configure_sandbox", { env: { A: "1" } })).status).toBe(403);
  });
});

describe("the region of a sandbox", () => {
  it("can be set only with the sandbox's first call, and the refusal of another region says where the sandbox is", async () => {
    const first = await owner.call("configure_sandbox", { sandbox: "region", region: "weur" });
    expect(first.structured.region).toBe("weur");
    expect((await owner.call("configure_sandbox", { sandbox: "region", region: "weur" })).isError).toBe(
      false,
    );
    const refused = await owner.call("configure_sandbox", { sandbox: "region", region: "oc" });
    expect([refused.isError, refused.text]).toEqual([
      true,
      expect.stringContaining("first use placed it in weur"),
    ]);
    const used = await owner.call("configure_sandbox", { sandbox: "vars-own", region: "oc" });
    expect([used.isError, used.text]).toEqual([
      true,
      expect.stringContaining("in a region that the platform chose"),
    ]);
  });

  it("is by default the region of the token, or else of the server", async () => {
    const everyone = (await principal("regionless")).withVariables({ DEFAULT_REGION: "apac" });
    expect((await everyone.call("configure_sandbox", { sandbox: "a" })).structured.region).toBe("apac");
    const own = (await principal("regional", undefined, "sam")).withVariables({ DEFAULT_REGION: "apac" });
    expect((await own.call("configure_sandbox", { sandbox: "b" })).structured.region).toBe("sam");
    expect((await own.call("configure_sandbox", { sandbox: "c", region: "me" })).structured.region).toBe(
      "me",
    );
  });
});
