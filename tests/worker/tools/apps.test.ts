/** The panel as an MCP App: its links in tools, its document, and its calls. */
import { describe, expect, it } from "vitest";
import { mcpHeaders, messagesIn } from "../../setup/mcp-client.ts";
import { type Caller, killContainer, owner, principal, sh } from "../support.ts";

const PANEL = "ui://sandbox-mcp/panel";
const TOOLS = "ui://sandbox-mcp/tools";
const UI = { "io.modelcontextprotocol/ui": { mimeTypes: ["text/html;profile=mcp-app"] } };
const LINKED = ["run_command", "expose_port", "execute_task", "list_sandboxes", "checkpoint_sandbox"];

interface Listed extends Record<string, unknown> {
  tools: { name: string; _meta?: { ui?: { resourceUri: string } } }[];
}

interface Read {
  contents: { mimeType: string; text: string; _meta?: unknown }[];
}

const linksIn = ({ tools }: Listed) =>
  tools.filter(({ _meta }) => _meta?.ui?.resourceUri === PANEL).map(({ name }) => name);
const list = (caller: Caller) => caller.result<Listed>({ method: "tools/list" });
const read = (caller: Caller, uri: string) =>
  caller.result<Read>({ method: "resources/read", params: { uri } });
/** The raw result of a call. */
const send = async (caller: Caller, name: string, args: Record<string, unknown>) =>
  (await caller.send(name, args)).messages.at(-1)?.result as Record<string, unknown>;

/** The session of a client of revision 2025-11-25 that declares these extensions. */
async function sessionOf(extensions: object | undefined, previous?: string): Promise<string | null> {
  const capabilities = { extensions };
  const params = { protocolVersion: "2025-11-25", capabilities, clientInfo: { name: "test", version: "1" } };
  const body = JSON.stringify({ jsonrpc: "2.0", id: 0, method: "initialize", params });
  const headers = { ...mcpHeaders(owner.token), ...(previous && { "mcp-session-id": previous }) };
  return (await owner.http("/mcp", { method: "POST", headers, body })).headers.get("mcp-session-id");
}

/** The result of a command in a client with this session. */
async function runInSession(session: string | null, args: object): Promise<Record<string, unknown>> {
  const params = { name: "run_command", arguments: args };
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params });
  const headers = {
    ...mcpHeaders(owner.token),
    "mcp-protocol-version": "2025-11-25",
    ...(session !== null && { "mcp-session-id": session }),
  };
  const response = await owner.http("/mcp", { method: "POST", headers, body });
  return messagesIn(await response.text()).at(-1)?.result as Record<string, unknown>;
}

describe("the panel in a chat", () => {
  it("is linked from tools for clients that declare the extension, and for clients that cannot declare it", async () => {
    const { result } = await owner.sendModern("tools/list", {}, UI);
    expect(linksIn(result as Listed).toSorted()).toEqual(LINKED.toSorted());
    for (const other of [{}, { "io.modelcontextprotocol/ui": { mimeTypes: ["text/plain"] } }]) {
      const without = await owner.sendModern("tools/list", {}, other);
      expect(linksIn(without.result as Listed)).toEqual([]);
    }
    expect(linksIn(await list(owner)).toSorted()).toEqual(LINKED.toSorted());
  });

  it("is not linked if it could not be used", async () => {
    expect(linksIn(await list(await principal("apps-blind", ["sandbox:exec"])))).toEqual([]);
    expect(linksIn(await list(owner.withQuery("?tools=run_command,get_result")))).toEqual([]);
  });

  it("is one document that needs no scope and requests only frames of previews", async () => {
    const blind = await principal("apps-reader", ["sandbox:exec"]);
    const { contents } = await read(blind.withVariables({ PREVIEW_HOST: "previews.example" }), PANEL);
    expect(contents).toHaveLength(1);
    expect(contents[0]?.mimeType).toBe("text/html;profile=mcp-app");
    expect(contents[0]?._meta).toEqual({
      ui: { csp: { frameDomains: ["https://*.previews.example"] }, prefersBorder: true },
    });
    const { text = "" } = contents[0] ?? {};
    expect(text).toMatch(/^<!doctype html>/);
    expect(text.match(/<script/g)).toHaveLength(1);
    expect(text).not.toMatch(/ (?:src|href)="https?:/);
    expect((await read(owner.withVariables({ PREVIEW_HOST: undefined }), PANEL)).contents[0]?._meta).toEqual({
      ui: { prefersBorder: true },
    });
    expect(await read(blind, PANEL)).toEqual(await read(await principal("apps-other"), PANEL));
  });

  it("learns which tools its token may call", async () => {
    const names = async (caller: Caller) => JSON.parse((await read(caller, TOOLS)).contents[0]?.text ?? "");
    const reader = await principal("apps-scopes", ["sandbox:read"]);
    expect(await names(reader)).toEqual((await list(reader)).tools.map(({ name }) => name));
    expect(await names(reader)).not.toContain("run_command");
    expect(await names(owner)).toContain("run_command");
  });

  it("gets data for its own calls, and the id of the run of each call of the model", async () => {
    const args = { command: "echo shown", sandbox: "apps-data" };
    const models = await runInSession(await sessionOf(UI), args);
    expect(models.structuredContent).toBeUndefined();
    const panels = await send(owner, "get_result", {
      id: (models._meta as Record<string, unknown>)["sandbox-mcp/run"],
      _results: "structured",
    });
    expect(panels.structuredContent).toMatchObject({ state: "succeeded", stdout: "shown\n" });
    for (const invalid of ["text", true]) {
      const refused = await send(owner, "run_command", { ...args, _results: invalid });
      expect(refused).toMatchObject({ isError: true });
      expect(JSON.stringify(refused)).toContain("_results");
    }
  });

  it("adds no metadata for clients without the extension", async () => {
    for (const extensions of [
      undefined,
      {},
      { "io.modelcontextprotocol/ui": { mimeTypes: ["text/plain"] } },
    ]) {
      const session = await sessionOf(extensions);
      expect(session).toBeNull();
      // A new session keeps no declaration of an earlier one.
      expect(await sessionOf(extensions, (await sessionOf(UI)) ?? "")).toBeNull();
      const result = await runInSession(session, { command: "echo 6", sandbox: "apps-data" });
      expect(Object.keys(result)).toEqual(["content"]);
    }
    const call = { name: "run_command", arguments: { command: "echo 6", sandbox: "apps-data" } };
    expect((await owner.sendModern("tools/call", call, UI)).result?._meta).toHaveProperty("sandbox-mcp/run");
    expect((await owner.sendModern("tools/call", call, {})).result?._meta).not.toHaveProperty(
      "sandbox-mcp/run",
    );
  });

  it("gets a plain result even if the client accepts tasks", async () => {
    const call = (more: object) =>
      owner.sendModern("tools/call", {
        name: "run_command",
        arguments: { command: "sleep 2", sandbox: "apps-data", ...more },
      });
    expect((await call({})).result).toMatchObject({ resultType: "task" });
    expect((await call({ _results: "structured" })).result).toMatchObject({
      structuredContent: { state: "succeeded" },
    });
  });

  it("does not consume the restart notice with its calls", async () => {
    const sandbox = "apps-data";
    await sh(sandbox, "true");
    await killContainer(sandbox);
    const resultText = async (more: object) =>
      JSON.stringify(await send(owner, "run_command", { command: "true", sandbox, ...more }));
    expect(await resultText({ _results: "structured" })).not.toContain("was restarted");
    expect(await resultText({})).toContain("was restarted");
  });
});
