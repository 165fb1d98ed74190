/** Serves the page of a client that shows MCP Apps, and its proxy on another origin. */
import { join } from "node:path";
import { build } from "esbuild";
import { repository } from "../server.ts";
import { serve } from "../serve.ts";

interface AppHost {
  /** The page of the client. */
  url: string;
  /** The page of the proxy. */
  proxy: string;
}

/** The policy that the extension defines for an App without further permissions. Clients must enforce it. */
function policyOf(csp: { frameDomains?: string[] }): string {
  return [
    "default-src 'none'",
    "script-src 'self' 'unsafe-inline'",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data:",
    "connect-src 'none'",
    `frame-src 'self' ${csp.frameDomains?.join(" ") ?? ""}`,
    "object-src 'none'",
    "base-uri 'none'",
  ].join("; ");
}

/** Serves both pages, until the time that `doLater` chooses. */
export async function startAppHost(): Promise<AppHost> {
  const { outputFiles } = await build({
    entryPoints: ["host", "proxy"].map((name) => join(repository, `tests/setup/app-host/${name}.ts`)),
    bundle: true,
    write: false,
    outdir: "out",
    format: "iife",
    target: "es2022",
    logLevel: "warning",
  });
  const page = (name: string) => {
    const script = outputFiles.find(({ path }) => path.endsWith(`${name}.js`))?.text ?? "";
    const style = "body { margin: 0 } iframe { display: block; width: 100%; height: 100%; border: 0 }";
    return `<!doctype html><html lang="en" style="height: 100%"><title>${name}</title><style>html, body { height: 100% } ${style}</style><body><script>${script}</script></body></html>`;
  };
  const pages = { host: page("host"), proxy: page("proxy") };
  const html = { "content-type": "text/html; charset=utf-8" };
  const url = await serve((_request, response) => response.writeHead(200, html).end(pages.host), "/");
  const proxy = await serve((request, response) => {
    const { searchParams } = new URL(request.url ?? "", "http://proxy");
    const csp = JSON.parse(searchParams.get("csp") ?? "{}") as { frameDomains?: string[] };
    response.writeHead(200, { ...html, "content-security-policy": policyOf(csp) }).end(pages.proxy);
  }, "/");
  return { url, proxy };
}
