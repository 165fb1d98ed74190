import { describe, expect, it } from "vitest";
import { appWith, ORIGIN } from "./support.ts";

const CATALOG = "/.well-known/ai-catalog.json";
const FOREIGN = { headers: { origin: "https://elsewhere.example" } };

interface Card {
  name: string;
  description: string;
  remotes: { url: string; supportedProtocolVersions: string[] }[];
}

describe("the discovery", () => {
  it("leads from the well-known address to the card, and from the card to the server", async () => {
    const app = appWith();
    const catalog = await app(CATALOG);
    expect(catalog.headers.get("content-type")).toBe("application/ai-catalog+json");
    const { entries } = await catalog.json<{
      entries: { type: string; identifier: string; url: string }[];
    }>();
    expect(entries).toHaveLength(1);
    expect(entries[0]?.identifier).toMatch(/^urn:air:[^:]+\.github\.io:mcp:sandbox-mcp$/);
    const response = await app(entries[0]?.url ?? "");
    expect(response.headers.get("content-type")).toBe(entries[0]?.type);
    expect(response.headers.get("content-type")).toBe("application/mcp-server-card+json");
    const card = await response.json<Card>();
    expect(card.name).toMatch(/^[a-zA-Z0-9.-]+\/[a-zA-Z0-9._-]+$/);
    expect(card.description.length).toBeLessThanOrEqual(100);
    expect(card.remotes[0]?.url).toBe(`${ORIGIN}/mcp`);
    expect(card.remotes[0]?.supportedProtocolVersions).toEqual(
      expect.arrayContaining(["2026-07-28", "2025-11-25"]),
    );
  });

  it("names the public origin if one is set", async () => {
    const app = appWith({ PUBLIC_ORIGIN: "https://public.example" });
    const card = await (await app("https://public.example/mcp/server-card")).json<Card>();
    expect(card.remotes[0]?.url).toBe("https://public.example/mcp");
  });

  it("can be cached for an hour, and is confirmed with 304 if it is unchanged", async () => {
    const first = await appWith()("/mcp/server-card");
    expect(first.headers.get("cache-control")).toBe("public, max-age=3600");
    const etag = first.headers.get("etag") ?? "";
    const repeated = await appWith()("/mcp/server-card", { headers: { "if-none-match": etag } });
    expect(repeated.status).toBe(304);
    expect(await repeated.text()).toBe("");
  });

  it("can be read by pages of any origin, except from a server on the user's own machine", async () => {
    const remote = await appWith()(CATALOG, FOREIGN);
    expect(remote.headers.get("access-control-allow-origin")).toBe("*");
    const preflight = await appWith()(CATALOG, { method: "OPTIONS", ...FOREIGN });
    expect(preflight.headers.get("access-control-allow-origin")).toBe("*");
    const local = await appWith()(`http://localhost:8787${CATALOG}`, FOREIGN);
    expect(local.status).toBe(403);
    expect(local.headers.get("access-control-allow-origin")).toBeNull();
  });
});
