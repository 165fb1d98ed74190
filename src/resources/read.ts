/** `resources/read`: a file or a directory of a sandbox, or an output of a run. */
import type { ReadResourceResult } from "@modelcontextprotocol/server";
import mime from "mime/lite";
import type { Artifact } from "../runs/task-detail.ts";
import type { RunView } from "../runs/run-types.ts";
import { isTaskID } from "../runs/id.ts";
import { canStartWith } from "../actors/sandbox-client.ts";
import { absolute } from "../../container/sandboxd/shapes.ts";
import { taskDetailOf } from "../tasks/collect.ts";
import { countAnswer } from "../shared/request-memory.ts";
import { ToolError } from "../shared/errors.ts";
import { shownName, toVisibleJSON } from "../shared/shown.ts";
import type { Scope } from "../shared/principal.ts";
import type { CallerContext } from "../shared/request-context.ts";
import {
  ARTIFACTS,
  LOG_NAME,
  NETWORK_PATH,
  fileURI,
  parseResourceURI,
  runURI,
} from "../shared/resource-uri.ts";
import { joinBytes, textOf } from "../shared/text.ts";
import { recordCall, requireSandboxOf } from "../tools/define.ts";
import { convertErrors, operateWithoutNotice, protocolError, readSandbox } from "./context.ts";
import { isPanelAddress, readPanel } from "./panel-app.ts";
import { readSkill } from "./skills.ts";
import { INSTEAD, absolutePathText, logOf, nothingOfName, tooLarge } from "./texts.ts";

type Contents = { mimeType: string; _meta?: Record<string, unknown> } & ({ text: string } | { blob: string });

/** The most bytes of a resource. In base64 they stay below 1 MB, where common clients cut a response. */
const RESOURCE_BYTES = 700 * 1024;

const MAX_ENTRIES = 1000;

/** The scopes needed to read a resource; none for the panel and skills, which contain no user data, and unknown addresses. */
export function resourceScopes(uri: string): readonly Scope[] {
  const address = parseResourceURI(uri);
  if ("problem" in address) return [];
  return "run" in address && isTaskID(address.run) ? ["tasks:run"] : ["sandbox:read"];
}

/** @throws {ProtocolError} */
export async function readResource(caller: CallerContext, uri: string): Promise<ReadResourceResult> {
  const skill = readSkill(uri);
  if (skill) return skill;
  if (isPanelAddress(uri))
    return convertErrors(caller, "resources/read", async () => ({
      contents: [{ ...(await readPanel(caller, uri)), uri }],
    }));
  const address = parseResourceURI(uri);
  const sandbox = "sandbox" in address ? address.sandbox : undefined;
  const call = { tool: "resources/read", scopes: resourceScopes(uri), sandbox };
  const contents = await recordCall(caller, call, async () => {
    if ("problem" in address) throw new ToolError("invalid_argument", address.problem);
    const found =
      "run" in address
        ? await readRunResource(caller, address.run, address.name)
        : await readSandboxResource(caller, address.sandbox, absolute(address.path));
    countAnswer(caller.memory, found, true);
    return found;
  });
  if (contents instanceof ToolError) throw protocolError(contents, uri);
  return { contents: [{ ...contents, uri }] };
}

async function readSandboxResource(caller: CallerContext, sandbox: string, path: string): Promise<Contents> {
  if (path === NETWORK_PATH) {
    const lines = await readSandbox(caller, sandbox, (actor, owner) => actor.connectionLines(owner));
    return { mimeType: "text/plain", text: lines };
  }
  const mayStart = canStartWith(caller.principal.scopes);
  try {
    const range = { path, offset: 0, limit: RESOURCE_BYTES + 1 };
    const { size, bytes } = await operateWithoutNotice(caller, sandbox, "read", range, { mayStart });
    if (bytes.length > RESOURCE_BYTES)
      throw tooLarge(
        shownName(path),
        Math.max(size, bytes.length),
        RESOURCE_BYTES,
        INSTEAD.ofFile(path, sandbox),
      );
    return contentsOf(path, bytes);
  } catch (error) {
    if (error instanceof ToolError && error.code === "is_directory")
      return readDirectory(caller, sandbox, path, mayStart);
    throw error instanceof ToolError && error.code === "not_found"
      ? addPathHint(error, sandbox, path)
      : error;
  }
}

function addPathHint(error: ToolError, sandbox: string, path: string): ToolError {
  const corrected = path.replace(/^\/workspace(?=\/workspace(?:\/|$))/, "");
  if (corrected === path) return error;
  return new ToolError("not_found", error.message, absolutePathText(sandbox, corrected));
}

async function readDirectory(caller: CallerContext, sandbox: string, path: string, mayStart: boolean) {
  const below = { path, depth: 1, limit: MAX_ENTRIES };
  const { entries: found, next } = await operateWithoutNotice(caller, sandbox, "list", below, { mayStart });
  const describe = ({ path: name, type, size, modified }: (typeof found)[number]) => ({
    name,
    uri: entryURI(sandbox, path, { path: name, type }),
    type,
    size,
    modified,
  });
  const entries = withinLimit(found, describe, charsOf);
  return listing({ path, entries, more: next !== undefined || entries.length < found.length });
}

/**
 * Describes the first items, with `RESOURCE_BYTES` characters in all. Each address or path repeats the directory's path, and an address
 * has up to 9 characters for one of a name.
 */
export function withinLimit<Item, Described>(
  items: readonly Item[],
  describe: (item: Item) => Described,
  charsIn: (described: Described) => number,
): Described[] {
  const described: Described[] = [];
  let chars = 0;
  for (const item of items) {
    const next = describe(item);
    chars += charsIn(next);
    if (chars > RESOURCE_BYTES) break;
    described.push(next);
  }
  return described;
}

const charsOf = ({ name, uri = "" }: { name: string; uri?: string | undefined }) => name.length + uri.length;

/**
 * The address of an entry of a directory. It ends with a slash if the entry is a directory.
 * @param parent the absolute path of the directory
 */
export function entryURI(sandbox: string, parent: string, { path, type }: { path: string; type: string }) {
  const uri = fileURI(sandbox, `${parent === "/" ? "" : parent}/${path}`);
  return uri !== undefined && type === "directory" ? `${uri}/` : uri;
}

async function readRunResource(caller: CallerContext, id: string, name: string): Promise<Contents> {
  const maxBytes = name === LOG_NAME ? RESOURCE_BYTES + 1 : 0;
  const { run, page } = await readSandbox(caller, requireSandboxOf(id), (actor, owner) =>
    actor.readRun(owner, { id, waitMs: 0, cursor: 0, maxBytes }),
  );
  if (name === "") {
    const outputs = outputsOf(run);
    const describe = ({ name: output, size }: (typeof outputs)[number]) => ({
      name: output,
      uri: runURI(id, output),
      size,
    });
    const resources = withinLimit(outputs, describe, charsOf);
    const more = resources.length < outputs.length || undefined;
    return listing({ id, kind: run.kind, state: run.state, title: run.title, resources, more });
  }
  if (name === LOG_NAME) {
    const bytes = joinBytes(page?.pieces.map((piece) => piece.bytes) ?? []);
    if (bytes.length > RESOURCE_BYTES)
      throw tooLarge(logOf(id), run.logBytes, RESOURCE_BYTES, INSTEAD.ofLog(id));
    return contentsOf("log.txt", bytes);
  }
  if (!name.startsWith(ARTIFACTS)) throw nothingOfName(id, name);
  const path = name.slice(ARTIFACTS.length);
  const { size, bytes } = await readSandbox(caller, requireSandboxOf(id), (actor, owner) =>
    actor.readArtifact(owner, id, path, 0, RESOURCE_BYTES + 1),
  );
  if (bytes.length > RESOURCE_BYTES)
    throw tooLarge(shownName(path), size, RESOURCE_BYTES, INSTEAD.ofArtifact(id, path));
  return contentsOf(path, bytes);
}

export function outputsOf(run: RunView): { name: string; size: number }[] {
  const artifacts: readonly Artifact[] = taskDetailOf(run)?.artifacts ?? [];
  return [
    { name: LOG_NAME, size: run.logBytes },
    ...artifacts.map(({ path, size }) => ({ name: ARTIFACTS + path, size })),
  ];
}

function contentsOf(path: string, bytes: Uint8Array): Contents {
  const text = textOf(bytes);
  const mimeType = typeOf(path, text !== undefined);
  return text === undefined ? { mimeType, blob: bytes.toBase64() } : { mimeType, text };
}

function listing(value: unknown): Contents {
  return { mimeType: "application/json", text: toVisibleJSON(value, 1) };
}

const MEDIA = /^(?:image\/(?!svg)|audio\/|video\/|font\/)/;

/** The MIME type for a file name, unless the content contradicts the name. For example, `.ts` is also a video format. */
export function typeOf(path: string, isText: boolean | undefined): string {
  const named = mime.getType(path) ?? undefined;
  if (isText === true && (named === undefined || MEDIA.test(named))) return "text/plain";
  if (isText === false && named?.startsWith("text/")) return "application/octet-stream";
  return named ?? "application/octet-stream";
}
