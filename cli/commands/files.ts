/** `sandbox-mcp files`: transfers files of any size to and from a sandbox by HTTP requests, without MCP. */
import { randomUUID } from "node:crypto";
import {
  constants,
  createReadStream,
  createWriteStream,
  fstatSync,
  lstatSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import { basename, dirname, join, posix } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { Command } from "@commander-js/extra-typings";
import { z } from "zod";
import { isFile } from "../../client/connection.ts";
import { fileAddress as addressOf } from "../../client/sandbox-files.ts";
import { SANDBOX_NAME } from "../../src/shared/names.ts";
import { serverCommand } from "../define-command.ts";
import { STOP_SIGNALS } from "../exit.ts";
import { http } from "../server-calls.ts";
import { bytes, json, line, note, Progress, table } from "../print.ts";
import { openUserDirectory, openUserPath } from "../linked-paths.ts";
import { type ServerOptions, userPath, serverAddress } from "../server-address.ts";
import * as texts from "./texts.ts";
import { unwritable, wrongSandboxName } from "../texts.ts";

/** @throws {CommandError} for an invalid sandbox name */
export function fileAddress(sandbox: string, path: string): string {
  if (!SANDBOX_NAME.test(sandbox)) throw wrongSandboxName("--sandbox", sandbox);
  return addressOf(sandbox, path);
}

const writtenSchema = z.object({ path: z.string(), size: z.number(), sha256: z.string().optional() });

const put = serverCommand("put", "upload a file to a sandbox; - reads standard input", [
  "files put data.csv",
  "files put report.pdf /tmp/report.pdf --sandbox build",
  "tar c src | sandbox-mcp files put - src.tar",
])
  .argument("<local>", "the local file")
  .argument(
    "[remote]",
    "the path in the sandbox, absolute or relative to /workspace; without it, the file's name",
  )
  .option("--sandbox <name>", "the sandbox", "default")
  .action(async (local, remote, { sandbox, ...options }) => {
    if (local === "-" && remote === undefined) throw texts.noRemotePath();
    const path = remote?.endsWith("/") ? remote + basename(local) : (remote ?? basename(local));
    const address = serverAddress(options);
    const body =
      local === "-" ? process.stdin : createReadStream("", { fd: openFile(userPath(local), options) });
    const progress = new Progress(`Sending ${path}`);
    const init = { method: "PUT", body: Readable.toWeb(body), duplex: "half" } as RequestInit;
    const response = await http(address, fileAddress(sandbox, path), init).finally(() => progress.stop());
    const written = writtenSchema.parse(await response.json());
    if (options.json) json(true, { sandbox, ...written });
    else line(`${written.path}: ${bytes(written.size)}`);
  });

const get = serverCommand("get", "download a file, or a directory as .tar.gz; - writes to standard output", [
  "files get report.pdf",
  "files get src - | tar tz",
  "files get /tmp/core.1 core --sandbox build",
])
  .argument("<remote>", "the path in the sandbox, absolute or relative to /workspace")
  .argument("[local]", "the local file; without it, the same name in this directory")
  .option("--sandbox <name>", "the sandbox", "default")
  .option("--force", "replace an existing local file")
  .action(async (remote, local, { sandbox, force, ...options }) => {
    const address = serverAddress(options);
    if (options.json && local === "-") throw texts.bothToOutput();
    if (local !== undefined && local !== "-") mustHaveDirectory(local);
    let response = await http(address, fileAddress(sandbox, remote));
    const isDirectory = !isFile(response);
    if (isDirectory) {
      await response.body?.cancel();
      response = await http(address, `${fileAddress(sandbox, remote)}?archive=tar.gz`);
    }
    if (response.body === null) throw texts.noContent(remote);
    const body = Readable.fromWeb(response.body as Parameters<typeof Readable.fromWeb>[0]);
    if (local === "-") return await pipeline(body, process.stdout, { end: false });
    const name = (basename(posix.resolve("/workspace", remote)) || "root") + (isDirectory ? ".tar.gz" : "");
    const to = local === undefined ? userPath(name) : destination(userPath(local), name);
    const at = join(openUserDirectory(dirname(to), options), basename(to));
    // If the local directory is mounted in a sandbox, code there may have put a link at this path. It is not followed.
    if (!force && lstatSync(at, { throwIfNoEntry: false }) !== undefined) throw texts.fileExists(to);
    const progress = new Progress(`Fetching ${remote}`);
    const partial = `${at}.${randomUUID()}.part`;
    const stopped = new AbortController();
    const stop = () => stopped.abort();
    for (const signal of STOP_SIGNALS) process.on(signal, stop);
    try {
      await pipeline(body, createWriteStream(partial, { flags: "wx" }), { signal: stopped.signal });
      renameSync(partial, at);
    } catch (error) {
      rmSync(partial, { force: true });
      throw stopped.signal.aborted ? texts.downloadStopped(remote) : texts.downloadBroke(remote, error);
    } finally {
      for (const signal of STOP_SIGNALS) process.off(signal, stop);
      progress.stop();
    }
    const { size } = statSync(at);
    if (options.json) json(true, { sandbox, remote, path: to, size });
    else line(`${to}: ${bytes(size)}`);
  });

const listSchema = z.object({
  entries: z.array(z.object({ path: z.string(), type: z.string(), size: z.number(), modified: z.string() })),
  more: z.boolean().optional(),
  next_cursor: z.string().optional(),
});

/** The most entries of a listing, which the server sends in pages. */
const MAX_ENTRIES = 100_000;

const ls = serverCommand("ls", "list a directory of a sandbox", [
  "files ls",
  "files ls src --recursive --json",
])
  .argument("[remote]", "the path in the sandbox, absolute or relative to /workspace", "/workspace")
  .option("--sandbox <name>", "the sandbox", "default")
  .option("--recursive", "include all directories below")
  .action(async (remote, { sandbox, recursive, ...options }) => {
    const query = new URLSearchParams(recursive ? { recursive: "true" } : {});
    const address = serverAddress(options);
    const entries: z.infer<typeof listSchema>["entries"] = [];
    let more = false;
    do {
      const response = await http(address, `${fileAddress(sandbox, remote)}?${query}`);
      if (isFile(response)) {
        await response.body?.cancel();
        throw texts.notDirectory(remote);
      }
      const part = listSchema.parse(await response.json());
      // Not `push(...)`: see the client's `Files.list`.
      for (const entry of part.entries) entries.push(entry);
      more = part.more ?? false;
      // The loop also ends at an empty page: a server could send cursors without entries for ever.
      if (part.next_cursor === undefined || part.entries.length === 0) break;
      query.set("cursor", part.next_cursor);
    } while (more && entries.length < MAX_ENTRIES);
    if (options.json) return json(true, { sandbox, path: remote, entries, more });
    table(
      [
        { title: "TYPE" },
        { title: "SIZE", isRightAligned: true },
        { title: "MODIFIED" },
        { title: "PATH", isName: true },
      ],
      entries.map((entry) => [entry.type, String(entry.size), entry.modified, entry.path]),
    );
    if (more) note(texts.MORE_ENTRIES);
  });

export const files = new Command("files")
  .description("upload, download and list files")
  .addCommand(put)
  .addCommand(get)
  .addCommand(ls);

/** Opens a file of the user. @throws {CommandError} if it is missing, no file, or if a sandbox may have linked it */
function openFile(path: string, options: ServerOptions): number {
  if (statSync(path, { throwIfNoEntry: false }) === undefined) throw texts.noLocalFile(path);
  // A named pipe is refused without waiting for its writer.
  const file = openUserPath(path, options, constants.O_RDONLY | constants.O_NONBLOCK);
  if (!fstatSync(file).isFile()) throw texts.notFile(path);
  return file;
}

/** @throws {CommandError} before the download, if the file cannot be created */
function mustHaveDirectory(local: string): void {
  const path = userPath(local);
  const directory = local.endsWith("/") ? path : dirname(path);
  if (!statSync(directory, { throwIfNoEntry: false })?.isDirectory())
    throw unwritable(path, texts.notLocalDirectory(directory));
}

/** Returns `path`, or if `path` is a directory, the path of the file `name` in it. */
function destination(path: string, name: string): string {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ? join(path, name) : path;
}
