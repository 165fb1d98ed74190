/** Links to files, and files over plain HTTP. */
import * as fc from "../../setup/chance.ts";
import { afterAll, describe, expect, it } from "vitest";
import { type Config, parseConfig } from "../../../src/shared/config.ts";
import { type LinkName, readToken, writeToken } from "../../../src/shared/link-token.ts";
import { linkKeys } from "../../../src/actors/link-keys.ts";
import type { ActorName } from "../../../src/shared/names.ts";
import { env } from "cloudflare:workers";
import type { Env } from "../../../src/shared/config.ts";
import { ORIGIN, evict, killContainer, owner, principal, sh, until, sha256 } from "../support.ts";

const sandbox = "links";
async function link(path: string, more: Record<string, unknown> = {}): Promise<string> {
  const result = await owner.call("file_link", { sandbox, path, ...more });
  if (result.isError) throw new Error(result.text);
  return new URL(String(result.structured.url)).pathname;
}

/** A form as a stream without Content-Length. */
function formOf(
  boundary: string,
  parts: readonly { field?: string; file?: string; pieces?: readonly Uint8Array[] }[],
): ReadableStream {
  function* bytes() {
    const text = new TextEncoder();
    for (const { field, file, pieces = [] } of parts) {
      const name = file === undefined ? `name="${field}"` : `name="file"; filename="${file}"`;
      yield text.encode(`--${boundary}\r\nContent-Disposition: form-data; ${name}\r\n\r\n`);
      yield* pieces;
      yield text.encode("\r\n");
    }
    yield text.encode(`--${boundary}--\r\n`);
  }
  return new Blob([...bytes()]).stream().pipeThrough(new IdentityTransformStream());
}

const bytesOf = async (response: Response) => new Uint8Array(await response.arrayBuffer());

describe("a download link", () => {
  it("sends the file unchanged, as a download", async () => {
    await sh(sandbox, "mkdir -p 'odd dir'; head -c 3000000 /dev/urandom >'odd dir/ž \"x\".html'");
    const result = await owner.call("file_link", { sandbox, path: 'odd dir/ž "x".html' });
    const response = await owner.http(new URL(String(result.structured.url)).pathname);
    expect(response.status).toBe(200);
    expect(Object.fromEntries(response.headers)).toMatchObject({
      "content-type": "text/html",
      "content-length": "3000000",
      "content-disposition": `attachment; filename="_ _x_.html"; filename*=UTF-8''%C5%BE%20%22x%22.html`,
      "content-security-policy": "sandbox; default-src 'none'",
      "x-content-type-options": "nosniff",
      "accept-ranges": "bytes",
      "cache-control": "no-store",
    });
    const bytes = await bytesOf(response);
    expect(bytes.length).toBe(3_000_000);
    expect(result.structured.sha256).toBe(await sha256(bytes));
    expect(result.text).toContain(await sha256(bytes));
  });

  it("supports range requests", async () => {
    await sh(sandbox, "printf 0123456789 >ten; : >empty");
    const path = await link("ten");
    const get = (range: string, more = {}) => owner.http(path, { headers: { range, ...more } });
    for (const [range, status, body, of] of [
      ["bytes=2-4", 206, "234", "bytes 2-4/10"],
      ["bytes=7-", 206, "789", "bytes 7-9/10"],
      ["bytes=-3", 206, "789", "bytes 7-9/10"],
      ["bytes=0-99", 206, "0123456789", "bytes 0-9/10"],
      ["bytes=10-", 416, "", "bytes */10"],
      ["bytes=-0", 416, "", "bytes */10"],
      ["bytes=4-2", 200, "0123456789", null],
      ["bytes=0-1,3-4", 200, "0123456789", null],
      ["lines=0-1", 200, "0123456789", null],
    ] as const) {
      const response = await get(range);
      expect([range, response.status, await response.text(), response.headers.get("content-range")]).toEqual([
        range,
        status,
        body,
        of,
      ]);
    }
    const etag = (await owner.http(path, { method: "HEAD" })).headers.get("etag") ?? "";
    expect((await get("bytes=0-0", { "if-range": etag })).status).toBe(206);
    await sh(sandbox, "printf 01234567890 >ten");
    expect((await get("bytes=0-0", { "if-range": etag })).status).toBe(200);
    expect(await (await owner.http(await link("empty"))).text()).toBe("");
  });

  it("returns the SHA-256 of the file if requested, also for a range", async () => {
    const digest = `sha-256=:${new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode("digest"))).toBase64()}:`;
    await sh(sandbox, "printf digest >digest; touch -d 1960-01-01 digest");
    const path = await link("digest");
    for (const [wanted, method, range, expected] of [
      ["sha-256=10", "GET", "", digest],
      ["sha-512=3, sha-256=1", "GET", "bytes=2-3", digest],
      ["sha-256=1", "HEAD", "", digest],
      ["sha-256=0", "GET", "", null],
      ["sha-512=10", "GET", "", null],
      ["", "GET", "", null],
    ] as const) {
      const response = await owner.http(path, { method, headers: { "want-repr-digest": wanted, range } });
      await response.body?.cancel();
      expect([wanted, response.headers.get("repr-digest")]).toEqual([wanted, expected]);
    }
    const rest = `/sandboxes/${sandbox}/files/digest`;
    const wanting = await owner.http(rest, { headers: { "want-repr-digest": "sha-256=1" } });
    expect([await wanting.text(), wanting.headers.get("repr-digest")]).toEqual(["digest", digest]);
  });

  it("returns neither a digest nor an ETag for a file that changes during the download", async () => {
    const stop = "touch stop-changing; wait";
    await sh(
      sandbox,
      "rm -f stop-changing; truncate -s 100M changing; (while [ ! -e stop-changing ]; do printf 0 >>changing; done) >/dev/null 2>&1 &",
    );
    const path = await link("changing");
    const headers = { "want-repr-digest": "sha-256=1", range: "bytes=0-9" };
    const response = await owner.http(path, { headers });
    expect([response.status, (await bytesOf(response)).length]).toEqual([206, 10]);
    expect([response.headers.get("repr-digest"), response.headers.get("etag")]).toEqual([null, null]);
    await sh(sandbox, `${stop}; rm changing`);
  });

  it("packs a directory, and removes the set-user-id bits of programs", async () => {
    await sh(
      sandbox,
      "mkdir -p tree/a; echo one >tree/a/one; ln -s a tree/link; cp /bin/true tree/x; chmod 6755 tree/x",
    );
    const response = await owner.http(await link("tree"));
    expect(response.headers.get("content-disposition")).toContain('filename="tree.tar.gz"');
    const packed = (await bytesOf(response)).toBase64();
    await owner.call("write_file", { sandbox, path: "packed", content: packed, encoding: "base64" });
    const unpack =
      "mkdir -p out; tar -xpzf packed -C out; cat out/a/one; readlink out/link; stat -c %a out/x";
    expect(await sh(sandbox, unpack)).toBe("one\na\n755\n");
  });

  it("packs a directory as .zip, which Info-ZIP can read, without set-user-id bits", async () => {
    await sh(
      sandbox,
      `mkdir -p zip/a/empty; (cd zip; cp /bin/true set-id; chmod 6755 set-id; echo one >'a/ž \\ x'; chmod 750 a/ž*; ln -s a link; : >none
      head -c 2000000 /dev/zero >zeros; head -c 2000000 /dev/urandom >noise; touch -d 2001-02-03T04:05:06Z zeros
      mkfifo pipe)`,
    );
    const { text, structured } = await owner.call("file_link", { sandbox, path: "zip" });
    expect(text).toContain("?archive=zip");
    const response = await owner.http(`${new URL(String(structured.url)).pathname}?archive=zip`);
    expect(response.headers.get("content-disposition")).toContain('filename="zip.zip"');
    expect(response.headers.get("content-type")).toBe("application/zip");
    const packed = await bytesOf(response);
    expect(packed.length).toBeLessThan(2_100_000);
    await owner.http(`/sandboxes/${sandbox}/files/packed.zip`, { method: "PUT", body: packed });
    // Python's zipfile verifies each checksum, and reads names, modes, links and times.
    const unpacked = await sh(
      sandbox,
      `python3 - <<'END'
import zipfile
with zipfile.ZipFile("packed.zip") as archive:
    assert archive.testzip() is None
    for item in sorted(archive.infolist(), key=lambda item: item.filename):
        mode = item.external_attr >> 16
        same = mode >> 12 == 8 and archive.read(item) == open("zip/" + item.filename, "rb").read()
        print(item.filename, oct(mode), same, archive.read(item) if mode >> 12 == 10 else "")
    print(archive.getinfo("zeros").date_time)
END`,
    );
    expect(unpacked.split("\n")).toEqual([
      "a/ 0o40755 False ",
      "a/empty/ 0o40755 False ",
      "a/ž \\ x 0o100750 True ",
      "link 0o120777 False b'a'",
      "noise 0o100644 True ",
      "none 0o100644 True ",
      "set-id 0o100755 True ",
      "zeros 0o100644 True ",
      "(2001, 2, 3, 4, 5, 6)",
      "",
    ]);
  });

  it("stops packing when nobody reads the .zip any more", async () => {
    await sh(sandbox, "mkdir -p endless; head -c 50M /dev/urandom >endless/noise");
    const response = await owner.http(`${await link("endless")}?archive=zip`);
    const packers = () => sh(sandbox, "pgrep -fc '[z]ip.py' || true");
    expect(await packers()).toBe("1\n");
    await response.body?.cancel();
    await until(async () => (await packers()) === "0\n");
    await sh(sandbox, "rm -r endless");
  });

  it("packs only directories, and only as .tar.gz or .zip", async () => {
    await sh(sandbox, "echo x >plain; mkdir -p packs");
    const file = await owner.http(`${await link("plain")}?archive=zip`);
    expect([file.status, await file.text()]).toEqual([409, expect.stringContaining("not a directory")]);
    const rar = await owner.http(`${await link("packs")}?archive=rar`);
    expect([rar.status, await rar.text()]).toEqual([400, expect.stringContaining("?archive=zip")]);
    const rest = await owner.http(`/sandboxes/${sandbox}/files/packs?archive=tar.gz`);
    expect([rest.status, rest.headers.get("content-type")]).toEqual([200, "application/gzip"]);
    await rest.body?.cancel();
  });

  it("has a readable error when it fails", async () => {
    expect((await owner.call("file_link", { sandbox, path: "missing" })).text).toContain(
      "There is no /workspace/missing",
    );
    await sh(sandbox, "echo x >gone");
    const path = await link("gone");
    expect((await owner.http(path, { method: "PUT", body: "new" })).status).toBe(403);
    await sh(sandbox, "rm gone");
    expect((await owner.http(path)).status).toBe(404);
    const short = await link("ten", { expires_seconds: 1 });
    await until(async () => (await owner.http(short)).status === 410);
    expect(await (await owner.http(short)).text()).toContain("expired");
    expect((await owner.http("/files/nonsense")).status).toBe(403);
  });
});

describe("an upload link", () => {
  it("accepts one complete file, and is invalid after that", async () => {
    const path = await link("in/big", { direction: "upload" });
    const bytes = new Uint8Array(4_000_000).fill(7);
    const response = await owner.http(path, { method: "PUT", body: bytes });
    expect([response.status, await response.json()]).toEqual([
      201,
      { path: "/workspace/in/big", size: 4_000_000, sha256: await sha256(bytes) },
    ]);
    expect(await sh(sandbox, "sha256sum <in/big; ls -A in")).toBe(`${await sha256(bytes)}  -\nbig\n`);
    expect((await owner.http(path, { method: "PUT", body: "again" })).status).toBe(410);
    expect(await sh(sandbox, "stat -c %s in/big")).toBe("4000000\n");
  });

  it("shows a page in a browser", async () => {
    const path = await link("form", { direction: "upload" });
    const shown = await owner.http(path, { headers: { accept: "text/html" } });
    expect(shown.headers.get("content-security-policy")).toMatch(/script-src 'sha256-/);
    expect(await shown.text()).toContain("/workspace/form");
  });

  it("accepts a form of any size as a stream", async () => {
    const bytes = crypto.getRandomValues(new Uint8Array(65_536));
    const pieces = Array.from({ length: 160 }, () => bytes);
    const boundary = "--=_x";
    const body = formOf(boundary, [{ field: "note" }, { file: "x", pieces }, { field: "after" }]);
    const path = await link("form", { direction: "upload" });
    const headers = { "content-type": `multipart/form-data; boundary="${boundary}"` };
    const response = await owner.http(path, { method: "POST", body, headers });
    const digest = await sha256(new Uint8Array(await new Blob(pieces).arrayBuffer()));
    expect([response.status, await response.json()]).toEqual([
      201,
      { path: "/workspace/form", size: 160 * 65_536, sha256: digest },
    ]);
    expect(await sh(sandbox, "sha256sum <form")).toBe(`${digest}  -\n`);
  });

  it("answers a form with a part that ends within its header", async () => {
    const path = await link("short", { direction: "upload" });
    const part = 'Content-Disposition: form-data; name="file"; filename="x"\r\n\r\ncontent';
    const body = `--b\r\n${part}\r\n--b\r\nContent-Dispo\r\n--b--\r\n`;
    const headers = { "content-type": "multipart/form-data; boundary=b" };
    expect((await owner.http(path, { method: "POST", headers, body })).status).toBe(201);
    expect(await sh(sandbox, "cat short")).toBe("content");
  });

  it("leaves the old file if a form ends early, is too large, or does not have exactly one file", async () => {
    await sh(sandbox, "echo old >formed");
    const path = await link("formed", { direction: "upload", max_bytes: 1000 });
    const small = [new Uint8Array(1000)];
    const formBytes = await new Response(formOf("b", [{ file: "x", pieces: small }])).bytes();
    const post = (form: BodyInit) =>
      owner.http(path, {
        method: "POST",
        body: form,
        headers: { "content-type": "multipart/form-data; boundary=b" },
      });
    for (const [form, status, words] of [
      [formBytes.subarray(0, 900), 503, "ended early"],
      [formBytes.subarray(0, -4), 503, "ended early"],
      ["no form", 503, "ended early"],
      [formOf("other", [{ file: "x", pieces: small }]), 503, "ended early"],
      [formOf("b", [{ file: "x", pieces: [...small, ...small] }]), 413, "1000 bytes"],
      [formOf("b", [{ file: "x", pieces: [new Uint8Array(6_000_000)] }]), 413, "1000 bytes"],
      [formOf("b", [{ field: "x" }]), 400, "one file"],
      [formOf("b", [{ file: "", pieces: [] }]), 400, "one file"],
      [
        formOf("b", [
          { file: "x", pieces: small },
          { file: "y", pieces: small },
        ]),
        400,
        "one file",
      ],
    ] as const) {
      const response = await post(form as BodyInit);
      expect([response.status, await response.text()]).toEqual([status, expect.stringContaining(words)]);
    }
    expect(await sh(sandbox, "cat formed; ls -A | grep sandbox-mcp || true")).toBe("old\n");
    expect((await post(formBytes)).status).toBe(201);
    expect(await sh(sandbox, "stat -c %s formed")).toBe("1000\n");
  });

  it("enforces its size limit, and can be used again after a failure", async () => {
    await sh(sandbox, "echo old >small");
    const path = await link("small", { direction: "upload", max_bytes: 10 });
    const long = await owner.http(path, { method: "PUT", body: "x".repeat(11) });
    expect([long.status, await long.text()]).toEqual([413, expect.stringContaining("10 bytes")]);
    const streamed = new Response("y".repeat(11)).body?.pipeThrough(new IdentityTransformStream());
    expect((await owner.http(path, { method: "PUT", body: streamed })).status).toBe(413);
    expect(await sh(sandbox, "cat small; ls -A | grep sandbox-mcp || true")).toBe("old\n");
    expect((await owner.http(path, { method: "PUT", body: "x".repeat(10) })).status).toBe(201);
  });

  it.each<Record<string, string>>([{}, { "content-length": String(100 * 65_536) }])(
    "reads the rest of an upload that is too large, so that its client sees the response, with the headers %j",
    async (headers) => {
      const path = await link("rest", { direction: "upload", max_bytes: 10 });
      let remaining = 100;
      const body = new ReadableStream({
        type: "bytes",
        pull: (controller) =>
          remaining-- > 0 ? controller.enqueue(new Uint8Array(65_536)) : controller.close(),
      });
      const response = await owner.http(path, { method: "PUT", body, headers });
      expect([response.status, await response.text()]).toEqual([413, expect.stringContaining("10 bytes")]);
      expect(remaining).toBeLessThan(0);
    },
  );

  it("reports that the sandbox was destroyed during the upload", async () => {
    const name = "destroyed-upload";
    const created = await owner.call("file_link", { sandbox: name, path: "a", direction: "upload" });
    const { readable, writable } = new IdentityTransformStream();
    const { pathname } = new URL(String(created.structured.url));
    const uploading = owner.http(pathname, { method: "PUT", body: readable });
    const writer = writable.getWriter();
    await writer.write(new Uint8Array(2 * 1024 * 1024));
    await until(() => sh(name, "ls -A").then((names) => names.includes("sandbox-mcp")));
    await owner.call("destroy_sandbox", { sandbox: name });
    const response = await uploading;
    expect([response.status, await response.text()]).toEqual([
      503,
      expect.stringContaining("stopped during this call"),
    ]);
  });

  it.each<Record<string, string>>([{}, { "content-length": "400000" }])(
    "leaves the old file if the upload breaks off, with the headers %j",
    async (headers) => {
      await sh(sandbox, "echo old >cut");
      const path = await link("cut", { direction: "upload" });
      const body = new ReadableStream({
        start: (controller) => controller.enqueue(new Uint8Array(200_000)),
        pull: () => Promise.reject(new Error("cut")),
      });
      const response = await owner.http(path, { method: "PUT", body, headers }).catch(() => undefined);
      expect(response?.status ?? 503).toBeGreaterThanOrEqual(400);
      await until(async () => (await sh(sandbox, "ls -A | grep sandbox-mcp || true")) === "");
      expect(await sh(sandbox, "cat cut")).toBe("old\n");
    },
  );

  it("reports that another upload is in progress, and is valid again if that upload fails", async () => {
    const path = await link("slow", { direction: "upload" });
    const { readable, writable } = new IdentityTransformStream();
    const writer = writable.getWriter();
    const first = owner.http(path, { method: "PUT", body: readable }).catch(() => undefined);
    await writer.write(new Uint8Array(10));
    await until(async () => {
      const second = await owner.http(path, {
        method: "POST",
        body: new Uint8Array(0),
        headers: { "content-type": "multipart/form-data; boundary=b" },
      });
      const body = await second.text();
      return second.status === 409 && body.includes("Another upload");
    });
    await writer.abort(new Error("cut"));
    await first;
    await until(async () => (await owner.http(path, { method: "PUT", body: "x" })).status === 201);
    expect(await (await owner.http(path, { method: "PUT", body: "x" })).text()).toContain("already used");
  });

  it("cannot be made for a directory", async () => {
    await sh(sandbox, "mkdir -p a-directory");
    for (const path of ["a-directory", "a-directory/", "new/"]) {
      const result = await owner.call("file_link", { sandbox, path, direction: "upload" });
      expect([result.isError, result.text]).toEqual([true, expect.stringContaining("is a directory")]);
    }
  });

  it("accepts one of many simultaneous uploads", async () => {
    const path = await link("raced", { direction: "upload" });
    const bodies = Array.from({ length: 8 }, (_, n) => String(n).repeat(500_000));
    const responses = await Promise.all(bodies.map((body) => owner.http(path, { method: "PUT", body })));
    const words = await Promise.all(
      responses.map(async (response) => `${response.status} ${await response.text()}`),
    );
    expect(words.filter((word) => word.startsWith("201"))).toHaveLength(1);
    expect(words.filter((word) => /^409 .*Another upload|^410 .*already used/.test(word))).toHaveLength(7);
    expect(await sh(sandbox, "fold -w 1000 raced | sort -u | wc -l; stat -c %s raced")).toBe("1\n500000\n");
  });

  it("needs sandbox:write, and needs sandbox:exec outside /workspace and /tmp", async () => {
    const reader = await principal("link-reader", ["sandbox:read"]);
    const denied = await reader.call("file_link", { path: "x", direction: "upload" });
    expect(denied.text).toContain("sandbox:write");
    const writer = await principal("link-writer", ["sandbox:read", "sandbox:write"]);
    const result = await writer.call("file_link", { path: "/etc/profile.d/x.sh", direction: "upload" });
    const { pathname } = new URL(String(result.structured.url));
    const response = await writer.http(pathname, { method: "PUT", body: "x" });
    expect([response.status, await response.text()]).toEqual([403, expect.stringContaining("sandbox:exec")]);
    await writer.call("destroy_sandbox", { sandbox: "default" });
  });
});

describe("the links of a container", () => {
  const name = "links-ended";
  afterAll(() => owner.call("destroy_sandbox", { sandbox: name }));

  it.each([
    ["destroyed", () => owner.call("destroy_sandbox", { sandbox: name })],
    ["killed", () => killContainer(name)],
    ["killed while the sandbox had no actor", () => evict(name, { kill: true })],
  ])("are refused after the container was %s, also in the next container", async (_what, end) => {
    await sh(name, "echo x >x");
    const [down, up] = await Promise.all(
      ["download", "upload"].map(async (direction) => {
        const { structured } = await owner.call("file_link", { sandbox: name, path: "x", direction });
        return new URL(String(structured.url)).pathname;
      }),
    );
    await end();
    await until(async () => (await owner.http(down ?? "")).status === 410);
    await sh(name, "echo other >x");
    expect((await owner.http(down ?? "")).status).toBe(410);
    expect((await owner.http(up ?? "", { method: "PUT", body: "y" })).status).toBe(410);
    expect(await sh(name, "cat x")).toBe("other\n");
  });
});

describe("the token of a link", () => {
  const config = parseConfig(env as Env);
  const keysOf = (one: Config) => linkKeys({ config: one, env: env as Env });
  const example: LinkName = { actor: "a-aaaaaaaaaaaaaaaa" as ActorName, id: "abcdefghij12" };

  it("can be made although the request that first needed the generated key has ended early", async () => {
    const generating = { ...config, serverAuthToken: undefined, linkKey: undefined };
    // Workerd never settles the promises of a request whose client has reset the connection.
    const answers = [new Promise<never>(() => undefined), Promise.resolve("00")];
    const Attempts = { getByName: () => ({ linkKey: () => answers.shift() }) } as unknown as Env["Attempts"];
    const context = { config: generating, env: { ...(env as Env), Attempts } };
    void linkKeys(context);
    expect(await linkKeys(context)).toHaveLength(1);
    expect(await linkKeys(context)).toHaveLength(1);
  });

  it("is refused with any bit changed, longer, shorter, or of another server", async () => {
    const token = (await writeToken(example, await keysOf(config))) ?? "";
    expect(await readToken(token, await keysOf(config))).toEqual(example);
    await fc.assert(
      fc.asyncProperty(fc.nat(token.length - 1), fc.integer({ min: 0, max: 6 }), async (at, bit) => {
        const changed = String.fromCharCode(token.charCodeAt(at) ^ (1 << bit));
        const other = token.slice(0, at) + changed + token.slice(at + 1);
        expect(await readToken(other, await keysOf(config))).toBeUndefined();
      }),
      { numRuns: 500 },
    );
    for (const other of [`${token}A`, token.slice(0, -1), `${token}=`, token.replace(".", ""), "", "."])
      expect(await readToken(other, await keysOf(config))).toBeUndefined();
    expect(
      await readToken(token, await keysOf({ ...config, linkKey: "another-key-that-is-long-enough" })),
    ).toBeUndefined();
    const rotated = { ...config, serverAuthToken: "the-next-token-of-the-owner" };
    expect(await readToken(token, await keysOf(rotated))).toBeUndefined();
    const previousToken = { value: config.serverAuthToken ?? "", until: Infinity };
    expect(await readToken(token, await keysOf({ ...rotated, previousToken }))).toEqual(example);
  });

  it("is refused with the id or the actor of another token", async () => {
    const ours = (await writeToken(example, await keysOf(config))) ?? "";
    for (const changed of [{ id: "abcdefghij13" }, { actor: "b-aaaaaaaaaaaaaaaa" as ActorName }]) {
      const other = (await writeToken({ ...example, ...changed }, await keysOf(config))) ?? "";
      expect(await readToken(other.slice(0, -16) + ours.slice(-16), await keysOf(config))).toBeUndefined();
    }
  });
});

describe("the address of a link", () => {
  it("has at most 120 characters for any file, and appears once in a result", async () => {
    const ownName = "a-name-of-20-letters";
    const deep = `${"directory/".repeat(40)}file.txt`;
    await owner.call("write_file", { sandbox: ownName, path: deep, content: "deep\n" });
    for (const args of [
      { path: deep },
      { path: "directory" },
      { path: "other.txt", direction: "upload", max_bytes: 5 * 1024 ** 3, expires_seconds: 86_400 },
    ]) {
      const { structured, text } = await owner.call("file_link", { sandbox: ownName, ...args });
      const url = String(structured.url);
      expect(url.length).toBeLessThanOrEqual(120);
      // The origin on Cloudflare for an account of 15 letters.
      const origin = `https://sandbox-mcp.${"a".repeat(15)}.workers.dev`;
      expect(url.replace(ORIGIN, origin).length).toBeLessThanOrEqual(120);
      expect(text.split(url)).toHaveLength(2);
    }
    await owner.call("destroy_sandbox", { sandbox: ownName });
  });

  it("is the same when a result is shown again", async () => {
    const { structured } = await owner.call("run_command", { sandbox, command: "seq 20000" });
    const links = async () =>
      (await owner.call("get_result", { id: structured.id })).text.match(/https:\S+(?=\])/g);
    const first = await links();
    expect(first).toHaveLength(1);
    expect((await owner.http(new URL(first?.[0] ?? "").pathname)).status).toBe(200);
    expect(await links()).toEqual(first);
  });
});

describe("/sandboxes/<name>/files/<path>", () => {
  const pathOf = (path: string) => `/sandboxes/${sandbox}/files/${path}`;

  it("writes, reads, lists and deletes", async () => {
    const put = await owner.http(pathOf("rest/ž%20x"), { method: "PUT", body: "0123456789" });
    expect(await put.json()).toMatchObject({ path: "/workspace/rest/ž x", size: 10 });
    const get = await owner.http(pathOf("rest/ž%20x"), { headers: { range: "bytes=3-" } });
    expect([get.status, await get.text()]).toEqual([206, "3456789"]);
    expect((await owner.http(pathOf("rest/ž%20x"), { method: "HEAD" })).headers.get("content-length")).toBe(
      "10",
    );
    expect(await (await owner.http(pathOf("rest"))).json()).toMatchObject({
      path: "/workspace/rest",
      entries: [{ path: "ž x", type: "file", size: 10 }],
      more: false,
    });
    expect((await owner.http(pathOf("/tmp/rest"), { method: "PUT", body: "t" })).status).toBe(200);
    expect(await sh(sandbox, "cat /tmp/rest")).toBe("t");
    expect((await owner.http(pathOf("rest"), { method: "DELETE" })).status).toBe(409);
    expect((await owner.http(pathOf("rest/ž%20x"), { method: "DELETE" })).status).toBe(204);
    expect((await owner.http(pathOf("rest?recursive=true"), { method: "DELETE" })).status).toBe(204);
    expect((await owner.http(pathOf("rest"))).status).toBe(404);
  });

  it("needs a token with the right scopes", async () => {
    const reader = await principal("rest-reader", ["sandbox:read"]);
    for (const method of ["PUT", "DELETE"])
      expect((await reader.http(pathOf("x"), { method })).status).toBe(403);
    expect((await owner.http(pathOf("x"), { headers: { authorization: "Bearer wrong" } })).status).toBe(401);
  });

  it("refuses an invalid name of a sandbox, and lists /workspace without a path", async () => {
    expect((await owner.http("/sandboxes/No%20Name/files/x")).status).toBe(400);
    expect(await (await owner.http("/sandboxes/links/files")).json()).toMatchObject({ path: "/workspace" });
  });
});
