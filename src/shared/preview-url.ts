import type { Config } from "./config.ts";
import { isLoopback } from "./origin.ts";
import { type PreviewAddress, writeLabel } from "./preview-address.ts";

export function previewURL(
  address: PreviewAddress,
  { config: { previewHost }, origin }: { config: Pick<Config, "previewHost">; origin: string | undefined },
): string | undefined {
  const label = writeLabel(address);
  if (previewHost !== undefined) {
    const url = new URL(`https://${label}.${previewHost}/`);
    if (isLoopback(url)) url.protocol = "http:";
    return url.href;
  }
  const serverURL = origin === undefined ? undefined : new URL(origin);
  if (!serverURL || !isLoopback(serverURL)) return undefined;
  serverURL.hostname = `${label}.localhost`;
  return serverURL.href;
}

/** The addresses of all previews as one source of a Content Security Policy. */
export function previewSource({ previewHost }: Pick<Config, "previewHost">, origin: string | undefined) {
  const any = { port: 1024, actor: "any", token: "any" };
  const url = previewURL(any, { config: { previewHost }, origin });
  return url?.replace(/\/\/[^.]+/, "//*").replace(/\/$/, "");
}
