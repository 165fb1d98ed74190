/**
 * A web page that shows MCP Apps like a client: with the official package's `AppBridge`, and with a proxy on another
 * origin, as the extension requires. It runs in a browser.
 */
import {
  AppBridge,
  getToolUiResourceUri,
  type McpUiDisplayMode,
  type McpUiHostContext,
  type McpUiResourceCsp,
  PostMessageTransport,
  RESOURCE_MIME_TYPE,
} from "@modelcontextprotocol/ext-apps/app-bridge";
import { type CallToolResult, Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

export interface Opening {
  endpoint: string;
  token: string;
  proxy: string;
  tool: string;
  args: Record<string, unknown>;
  context?: McpUiHostContext;
  /**
   * Acts like some clients: speaks a revision before 2026, passes on only a call's tool and arguments, and removes
   * `_meta` and everything except the content from a result.
   */
  isNarrow?: boolean;
}

interface PageRequests {
  links: string[];
  heights: number[];
  modes: McpUiDisplayMode[];
  calls: number;
}

const IMPLEMENTATION = { name: "test-host", version: "1.0.0" };
const pageRequests: PageRequests = { links: [], heights: [], modes: [], calls: 0 };
let opened: AppBridge | undefined;

/** Calls a tool and shows its App. Resolves when the App is ready, even if the call continues. */
async function open({ endpoint, token, proxy, tool: name, args, context, isNarrow }: Opening): Promise<void> {
  const client = new Client(IMPLEMENTATION, {
    capabilities: { extensions: { "io.modelcontextprotocol/ui": { mimeTypes: [RESOURCE_MIME_TYPE] } } },
    versionNegotiation: { mode: isNarrow ? "legacy" : { pin: "2026-07-28" } },
  });
  const requestInit = { headers: { authorization: `Bearer ${token}` } };
  await client.connect(new StreamableHTTPClientTransport(new URL(endpoint), { requestInit }));
  const { tools } = await client.listTools();
  const tool = tools.find((known) => known.name === name);
  const uri = tool && getToolUiResourceUri(tool);
  if (!tool || !uri) throw new Error(`${name} links no App`);
  const { contents } = await client.readResource({ uri });
  const [content] = contents;
  if (!content || !("text" in content) || content.mimeType !== RESOURCE_MIME_TYPE) throw new Error("no App");
  const { csp } = (content._meta?.ui ?? {}) as { csp?: McpUiResourceCsp };

  const frame = document.createElement("iframe");
  frame.title = "App";
  frame.setAttribute("sandbox", "allow-scripts allow-same-origin allow-forms");
  frame.style.height = "300px";
  const ready = new Promise<void>((resolve) => {
    addEventListener("message", ({ source, data }) => {
      if (source === frame.contentWindow && data?.method === "ui/notifications/sandbox-proxy-ready")
        resolve();
    });
  });
  frame.src = `${proxy}?csp=${encodeURIComponent(JSON.stringify(csp ?? {}))}`;
  addEventListener("message", ({ source, data }) => {
    if (source === frame.contentWindow && data?.method === "tools/call") pageRequests.calls++;
  });
  const typing = document.createElement("input");
  typing.ariaLabel = "Message";
  document.body.replaceChildren(typing, frame);
  typing.focus();
  await ready;

  const bridge = new AppBridge(
    isNarrow ? null : client,
    IMPLEMENTATION,
    { openLinks: {}, serverTools: {}, ...(!isNarrow && { serverResources: {} }) },
    { hostContext: { ...context, toolInfo: { tool } } },
  );
  if (isNarrow)
    bridge.oncalltool = async ({ name: called, arguments: given }) => {
      const {
        content: blocks,
        structuredContent,
        isError,
      } = await client.callTool({
        name: called,
        arguments: given,
      });
      return { content: blocks, structuredContent, isError };
    };
  bridge.onopenlink = async ({ url }) => {
    pageRequests.links.push(url);
    return {};
  };
  bridge.onsizechange = ({ height }) => {
    if (height === undefined) return;
    pageRequests.heights.push(height);
    frame.style.height = `${height}px`;
  };
  bridge.onrequestdisplaymode = async ({ mode }) => {
    pageRequests.modes.push(mode);
    bridge.setHostContext({ ...context, displayMode: mode });
    return { mode };
  };
  const initialized = new Promise<void>((resolve) => (bridge.oninitialized = () => resolve()));
  const view = frame.contentWindow as Window;
  await bridge.connect(new PostMessageTransport(view, view));
  await bridge.sendSandboxResourceReady({ html: content.text, csp });
  await initialized;
  opened = bridge;

  const call = client.callTool({ name, arguments: args });
  await bridge.sendToolInput({ arguments: args });
  void call.then(({ content: blocks, isError, ...rest }) =>
    bridge.sendToolResult(
      (isNarrow ? { content: blocks, isError } : { content: blocks, isError, ...rest }) as CallToolResult,
    ),
  );
}

/** Changes the properties of the client that the App can read, for example the theme. */
function tell(context: McpUiHostContext): void {
  opened?.setHostContext(context);
}

/** The functions that tests call in the page. */
export interface TestHost {
  open(opening: Opening): Promise<void>;
  tell(context: McpUiHostContext): void;
  pageRequests: PageRequests;
}

const testHost: TestHost = { open, tell, pageRequests };
Object.assign(globalThis, { testHost });
