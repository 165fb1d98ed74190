/**
 * The page in a client's chat, as an MCP App (extension version 2026-01-26): the client forwards the page's calls to the
 * server, with the client's own token.
 *
 * The types come from the official package. This file implements the few messages itself, because the package's class `App`
 * includes an MCP client and a schema library. The class takes 147 KB compressed, four times as much as this page, and a chat
 * would load it each time that it shows the page.
 */
import type {
  McpUiHostContext,
  McpUiInitializeRequest,
  McpUiInitializeResult,
} from "@modelcontextprotocol/ext-apps";
import { PANEL_TOOLS_URI } from "../src/shared/apps.ts";
import { messageOf } from "../src/shared/text.ts";
import { ParentPage } from "./parent-page.ts";
import { confirmDialog, alertDialog } from "./dialog.ts";
import type { Host, ToolResult } from "./host.ts";
import type { OfferedTools } from "./offered.ts";
import { Subject } from "./subject.ts";
import { ToolFailed } from "./tools.ts";
import { Value } from "./value.ts";
import { NO_TOOLS, notOpened } from "./texts.ts";

const VERSION = "2026-01-26";

const MODES = ["inline", "fullscreen"] as const;
type Mode = (typeof MODES)[number];

export async function chatHost(): Promise<Host> {
  const place = new Value("#/");
  const mode = new Value<Mode>("inline");
  let context: McpUiHostContext = {};
  const update = (changed: McpUiHostContext) => {
    context = { ...context, ...changed };
    mode.set(context.displayMode === "fullscreen" ? "fullscreen" : "inline");
    applyContext(context);
  };
  const parent = new ParentPage({
    ping: () => ({}),
    "ui/notifications/host-context-changed": update,
    "ui/notifications/tool-input": ({ arguments: args }) => subject.setCall(context.toolInfo?.tool, args),
    "ui/notifications/tool-result": (result) => subject.setResult(result),
    "ui/notifications/tool-cancelled": () => subject.stopFollowing(),
    "ui/resource-teardown": () => {
      subject.stopFollowing();
      isTornDown = true;
      return {};
    },
  });
  let isTornDown = false;
  let capabilities: McpUiInitializeResult["hostCapabilities"] | undefined;
  const callTool: Host["callTool"] = async (name, args, form, signal) => {
    if (capabilities && !capabilities.serverTools) throw new ToolFailed(NO_TOOLS);
    const params = { name, arguments: { ...args, _results: form } };
    return parent.request<ToolResult>("tools/call", params, signal);
  };
  const subject = new Subject(place, callTool);

  const initialize: McpUiInitializeRequest["params"] = {
    protocolVersion: VERSION,
    appInfo: { name: "sandbox-mcp-panel", version: "1" },
    appCapabilities: { availableDisplayModes: [...MODES] },
  };
  const initialized = await parent.request<McpUiInitializeResult>("ui/initialize", initialize);
  const { hostCapabilities = {}, hostContext = {} } = initialized;
  capabilities = hostCapabilities;
  update(hostContext);
  parent.notify("ui/notifications/initialized", {});
  reportHeight(parent, () => mode.get() === "inline" && !("height" in (context.containerDimensions ?? {})));

  const openLink = async (url: string) => {
    const opened =
      hostCapabilities.openLinks && (await parent.request<{ isError?: boolean }>("ui/open-link", { url }));
    if (!opened || opened.isError) throw new ToolFailed(notOpened(url));
  };
  const go = (href: string) => {
    subject.stopFollowing();
    place.set(href);
  };
  // The browser would not follow links here: the page has no address, and is not allowed to leave its frame.
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest("a[href]") : null;
    if (!link) return;
    event.preventDefault();
    const href = link.getAttribute("href") ?? "";
    if (href.startsWith("#")) go(href);
    else openLink(href).catch((error: unknown) => alertDialog(messageOf(error)));
  });
  const isSeen = trackVisibility();
  return {
    callTool,
    async listTools(signal) {
      if (!hostCapabilities.serverResources) return EVERY_TOOL;
      const { contents } = await parent.request<{ contents: { text?: string }[] }>(
        "resources/read",
        { uri: PANEL_TOOLS_URI },
        signal,
      );
      return new Set(JSON.parse(contents[0]?.text ?? "[]") as string[]);
    },
    place,
    go,
    endpoint: undefined,
    signOut: undefined,
    canReachServer: false,
    download: openLink,
    confirm: confirmDialog,
    isOutOfSight: () => isTornDown || document.hidden || !isSeen(),
    display: hostContext.availableDisplayModes?.includes("fullscreen") ? mode : undefined,
    async show(display) {
      const shown = await parent.request<{ mode?: string }>("ui/request-display-mode", { mode: display });
      update({ displayMode: shown.mode === "fullscreen" ? "fullscreen" : "inline" });
    },
  };
}

/**
 * Offers all tools, for a client that reads no resources for the page. All controls are shown then, and the server refuses
 * forbidden calls.
 */
const EVERY_TOOL: OfferedTools = { has: () => true };

function applyContext({ theme, safeAreaInsets, displayMode = "inline" }: McpUiHostContext): void {
  const { style, dataset } = document.documentElement;
  if (theme) style.colorScheme = theme;
  dataset.display = displayMode;
  for (const [side, pixels] of Object.entries(safeAreaInsets ?? {}))
    document.body.style.setProperty(`padding-${side}`, `${Number(pixels)}px`);
}

function reportHeight(parent: ParentPage, isHeightFree: () => boolean): void {
  let reportedHeight = 0;
  new ResizeObserver(() => {
    const height = Math.ceil(document.body.getBoundingClientRect().height);
    if (height === reportedHeight || !isHeightFree()) return;
    reportedHeight = height;
    parent.notify("ui/notifications/size-changed", { height });
  }).observe(document.body);
}

/** Whether the page is visible: a chat has many such pages, most of them scrolled away. */
function trackVisibility(): () => boolean {
  let isSeen = true;
  new IntersectionObserver((entries) => {
    isSeen = entries.at(-1)?.isIntersecting ?? true;
    document.dispatchEvent(new Event("visibilitychange"));
  }).observe(document.body);
  return () => isSeen;
}
