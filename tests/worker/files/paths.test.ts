/** Files over plain HTTP with any name: the bytes come back unchanged, or there is a readable error. */
import * as fc from "../../setup/chance.ts";
import { expect, it } from "vitest";
import { MAX_HELD_BYTES } from "../../../src/shared/limits.ts";
import { RequestMemory } from "../../../src/shared/request-memory.ts";
import { actorOf, runInActor, owner, principal, sh, until } from "../support.ts";

const sandbox = "paths";
const pathOf = (path: string) => `/sandboxes/${sandbox}/files/${path}`;
const put = (path: string, body = "x") => owner.http(pathOf(path), { method: "PUT", body });

/** The error of a refused request. */
async function refusal(response: Response): Promise<string> {
  expect(response.status).toBeGreaterThanOrEqual(400);
  expect(response.status).toBeLessThan(500);
  const { error } = await response.json<{ error: string }>();
  expect(error).toMatch(/^["A-Z/].* .*\.$/s);
  return error;
}

const part = fc.oneof(
  fc.string({ unit: "binary", minLength: 1, maxLength: 40 }),
  fc.string({ unit: "grapheme-composite", minLength: 1, maxLength: 20 }),
  fc.constantFrom(
    ".",
    "..",
    "...",
    " ",
    "-",
    "~",
    "%",
    "%2f",
    "%00",
    "a\\b",
    "C:",
    "*",
    "?",
    "#",
    "a".repeat(256),
    "é".repeat(127),
  ),
);

it("the server writes, reads, lists and deletes files with any name, or returns a readable error", async () => {
  let written = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(part, { minLength: 1, maxLength: 4 }),
      fc.constantFrom("/", "//"),
      fc.constantFrom("", "/"),
      fc.uint8Array({ maxLength: 300 }),
      async (parts, separator, end, bytes) => {
        const names = parts.map((name) => name.toWellFormed());
        const encoded = names.map((name) => encodeURIComponent(name)).join(separator) + end;
        // The sender resolves `.` and `..` in a URL, and the server in a path. Neither may lead out of the directory.
        const path = pathOf(`any/${encoded}`);
        const { pathname } = new URL(path, "http://x");
        if (!pathname.startsWith(pathOf("any/")) || pathname === pathOf("any/")) return;
        const response = await owner.http(path, { method: "PUT", body: bytes });
        if (response.status !== 200) {
          await refusal(response);
          return;
        }
        written++;
        const stored = await response.json<{ path: string; size: number }>();
        expect(stored.size).toBe(bytes.length);
        const got = await owner.http(path);
        expect([got.status, new Uint8Array(await got.arrayBuffer())]).toEqual([200, bytes]);
        const cut = stored.path.lastIndexOf("/");
        const parent = stored.path.slice(0, cut).split("/").map(encodeURIComponent).join("/");
        const listed = await (await owner.http(pathOf(parent))).json<{ entries: { path: string }[] }>();
        expect(listed.entries.map((entry) => entry.path)).toContain(stored.path.slice(cut + 1));
        expect((await owner.http(path, { method: "DELETE" })).status).toBe(204);
        expect((await owner.http(path)).status).toBe(404);
      },
    ),
    { numRuns: 30 },
  );
  expect(written).toBeGreaterThan(8);
  expect(
    await sh(
      sandbox,
      "find / -xdev -newer /proc/1/cmdline -path '*sandbox-mcp.*' -name '.sandbox-mcp.*' 2>/dev/null || true",
    ),
  ).toBe("");
});

it("the server writes only below /workspace and /tmp without sandbox:exec, with any name", async () => {
  const writer = await principal("paths-writer", ["sandbox:read", "sandbox:write"]);
  const refusals = new Set<boolean>();
  const written: string[] = [];
  await fc.assert(
    fc.asyncProperty(fc.array(part, { minLength: 1, maxLength: 3 }), async (parts) => {
      const names = parts.map((name) => encodeURIComponent(name.toWellFormed()));
      const path = pathOf(`..%2f..%2f${names.join("%2f")}/x`);
      const response = await writer.http(path, { method: "PUT", body: "x" });
      if (response.status === 200) written.push((await response.json<{ path: string }>()).path);
      else refusals.add((await refusal(response)).includes("sandbox:exec"));
    }),
    { numRuns: 30 },
  );
  expect(refusals).toContain(true);
  expect(written.filter((path) => !/^\/(workspace|tmp)\/./.test(path))).toEqual([]);
  expect((await writer.http(pathOf("/etc/hostname"), { method: "DELETE" })).status).toBe(403);
  await writer.call("destroy_sandbox", { sandbox });
});

it("the server refuses names that are too long, contain NUL, or are not UTF-8", async () => {
  await put("plain");
  expect(await refusal(await put("n".repeat(256)))).toContain("too long");
  for (const method of ["PUT", "GET", "DELETE"])
    expect(await refusal(await owner.http(pathOf("d/".repeat(2100)), { method }))).toContain(
      "longer than 4096 characters",
    );
  expect(await refusal(await put("a%00b"))).toContain("not the address of a file");
  expect(await refusal(await put("a%ffb"))).toContain("percent-encoded UTF-8");
  expect(await refusal(await put("plain/below"))).toContain("Not a directory");
});

it("the server changes no file for a request with a range or a condition, which it does not support", async () => {
  await put("whole", "all of it");
  for (const [header, value] of [
    ["content-range", "bytes 4-5/6"],
    ["if-match", '"another"'],
    ["if-none-match", "*"],
    ["if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT"],
  ] as const)
    for (const method of ["PUT", "DELETE"]) {
      const body = method === "PUT" ? "of" : undefined;
      const response = await owner.http(pathOf("whole"), { method, body, headers: { [header]: value } });
      expect(await refusal(response)).toContain(header);
    }
  expect(await (await owner.http(pathOf("whole"))).text()).toBe("all of it");
});

it("the server reads files of /proc, which report the size 0", async () => {
  await sh(sandbox, "true");
  const response = await owner.http(pathOf("/proc/sys/kernel/ostype"));
  expect([response.status, await response.text()]).toEqual([200, "Linux\n"]);
  expect(response.headers.get("content-length")).toBe("6");
});

it("the server refuses a loop of symbolic links", async () => {
  await sh(sandbox, "ln -sfn circle circle");
  for (const method of ["GET", "PUT"]) {
    const body = method === "PUT" ? "x" : undefined;
    const response = await owner.http(pathOf("circle"), { method, body });
    expect([response.status, await response.text()]).toEqual([
      400,
      expect.stringContaining("symbolic links"),
    ]);
  }
});

it("the server removes directories only with ?recursive=true, and never the workspace itself", async () => {
  await sh(sandbox, "mkdir -p full; : >full/x");
  const one = await owner.http(pathOf("full"), { method: "DELETE" });
  expect([one.status, await one.text()]).toEqual([409, expect.stringContaining("?recursive=true")]);
  for (const path of ["?recursive=true", ".?recursive=true", "/?recursive=true", "/workspace?recursive=true"])
    expect(await refusal(await owner.http(pathOf(path), { method: "DELETE" }))).toContain(
      "itself cannot be removed",
    );
  await sh(sandbox, "ln -s / root");
  for (const path of ["root/workspace?recursive=true", "root/workspace/?recursive=true"])
    expect((await owner.http(pathOf(path), { method: "DELETE" })).status).toBe(403);
  expect(await sh(sandbox, "ls full")).toBe("x\n");
});

it("the server starts a stopped sandbox with its saved workspace to read or remove a file", async () => {
  await put("kept", "as it was");
  await sh(sandbox, "touch gone");
  const stop = async () => {
    // The server refuses a write while the container still ends, and a sandbox that is in use is not stopped.
    await until(async () => {
      await runInActor(sandbox, (actor) => actor.onActivityExpired());
      return !(await (await actorOf(sandbox)).condition()).isAlive;
    });
  };
  await stop();
  const got = await owner.http(pathOf("kept"));
  expect([got.status, await got.text()]).toEqual([200, "as it was"]);
  await stop();
  const removed = await owner.http(pathOf("gone"), { method: "DELETE" });
  expect([removed.status, await removed.text()]).toEqual([204, ""]);
});

it("a file with a time that no date can hold is listed and served with the nearest date", async () => {
  await sh(
    sandbox,
    "mkdir -p times && touch times/file && perl -e 'utime(1e13, 1e13, @ARGV) or die' times/file",
  );
  const listed = await owner.call("list_files", { sandbox, path: "times" });
  expect([listed.isError, listed.text]).toEqual([
    false,
    expect.stringContaining("+275760-09-13T00:00:00Z file"),
  ]);
  const got = await owner.http(pathOf("times/file"));
  expect([got.status, await got.text()]).toEqual([200, ""]);
});

it("the server does not create a sandbox to read or remove a file", async () => {
  const name = "paths-misspelt";
  for (const method of ["GET", "HEAD", "DELETE"]) {
    const response = await owner.http(`/sandboxes/${name}/files/x`, { method });
    expect(response.status).toBe(404);
  }
  const linked = await owner.call("file_link", { sandbox: name, path: "x" });
  expect([linked.isError, linked.text]).toEqual([true, expect.stringContaining("not running")]);
  expect((await (await actorOf(name)).condition()).isAlive).toBe(false);
  expect((await owner.call("list_sandboxes", {})).text).not.toContain(name);
});

it("the server refuses requests while the principal's calls and unread answers take too much memory", async () => {
  const caller = await principal("many-files");
  const others = new RequestMemory(caller.principalID, new AbortController().signal);
  others.add(MAX_HELD_BYTES);
  try {
    const response = await caller.http(pathOf("a"));
    expect(response.status).toBe(429);
    expect(await response.text()).toContain("Too many requests");
  } finally {
    others.release();
  }
  expect((await caller.http(pathOf("a"))).status).toBe(404);
});
