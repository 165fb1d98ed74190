import { createServer } from "node:http";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { failureOf, REMOTE_URL, startRuntime, type Runtime } from "./runtime.ts";

let runtime: Runtime;
let api: Runtime["api"];
const session = `backup-${process.pid}`;
const dir = `/tmp/${session}`;
const archive = `/var/backups/${session}.sqsh`;

const shell = async (command: string): Promise<string> =>
  (await api.commands.execute(command, session)).stdout;

beforeAll(async () => {
  runtime = await startRuntime();
  api = runtime.api;
});
afterAll(async () => {
  await shell(`rm -rf ${dir} ${archive}`);
  await runtime.stop();
});

// Other formats than the container's, so only the local runtime's own round trip can be tested like this.
describe.skipIf(REMOTE_URL)("backup", () => {
  it("puts a directory back as it was, without what was excluded", async () => {
    await shell(`mkdir -p ${dir}/sub/cache ${dir}/empty && cd ${dir} && git init -q . && echo ignored > .gitignore &&
      echo 1 > a && echo 2 > sub/b && echo 3 > sub/cache/c && echo 4 > ignored && echo 5 > x.log && chmod 750 a`);
    const made = await api.backup.createArchive(dir, archive, session, {
      excludes: ["**/cache", "*.log"],
      gitignore: true,
    });
    expect(made).toMatchObject({ success: true, archivePath: archive, sizeBytes: expect.any(Number) });
    expect(made.sizeBytes).toBeGreaterThan(0);
    await shell(`cd ${dir} && echo changed > a && rm sub/b && echo new > later`);
    expect(await api.backup.restoreArchive(dir, archive, session)).toEqual({ success: true, dir });
    expect(await shell(`cd ${dir} && cat a sub/b && stat -c %a a && ls -A . sub`)).toBe(
      "1\n2\n750\n.:\n.git\n.gitignore\na\nempty\nsub\n\nsub:\nb",
    );
  });

  it("leaves the directory alone when the archive is broken", async () => {
    await shell(`echo broken > /var/backups/${session}.broken; mkdir -p ${dir}; echo kept > ${dir}/kept`);
    const failure = await failureOf(
      api.backup.restoreArchive(dir, `/var/backups/${session}.broken`, session),
    );
    expect(failure.code).toBe("BACKUP_RESTORE_FAILED");
    expect(
      await shell(`cat ${dir}/kept; rm /var/backups/${session}.broken; ls -A ${dir} | grep restore`),
    ).toBe("kept");
  });

  it("uploads the parts of an archive and tries again", async () => {
    await shell(`printf 0123456789 > ${archive}`);
    const received: Record<string, string> = {};
    let refusals = 1;
    const server = createServer((request, response) => {
      let body = "";
      request.setEncoding("utf8").on("data", (chunk: string) => (body += chunk));
      request.once("end", () => {
        if (request.url === "/2" && refusals-- > 0) return response.writeHead(500).end();
        received[request.url ?? ""] = `${request.headers["content-length"]}:${body}`;
        return response.writeHead(200, { etag: `"etag${request.url}"` }).end();
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    const url = `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`;
    const result = await api.backup.uploadParts({
      archivePath: archive,
      parts: [
        { partNumber: 2, url: `${url}/2`, offset: 6, size: 4 },
        { partNumber: 1, url: `${url}/1`, offset: 0, size: 6 },
      ],
    });
    server.close();
    expect(received).toEqual({ "/1": "6:012345", "/2": "4:6789" });
    expect(result.parts).toEqual([
      { partNumber: 1, etag: '"etag/1"' },
      { partNumber: 2, etag: '"etag/2"' },
    ]);
  });
});

describe("backup's refusals", () => {
  it("are about paths outside the allowed ones, and missing files", async () => {
    const codes = await Promise.all(
      [
        api.backup.createArchive("/etc", archive, session),
        api.backup.createArchive("/tmp/../etc", archive, session),
        api.backup.createArchive("/tmp", "/tmp/archive", session),
        api.backup.createArchive("/tmp/none-at-all", archive, session),
        api.backup.restoreArchive("/tmp/x", "/var/backups/none.sqsh", session),
      ].map(async (call) => (await failureOf(call)).code),
    );
    const invalid = "INVALID_BACKUP_CONFIG";
    expect(codes).toEqual([invalid, invalid, invalid, "BACKUP_CREATE_FAILED", "BACKUP_RESTORE_FAILED"]);
  });
});
