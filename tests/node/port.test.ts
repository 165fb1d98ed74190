/** The port of a server that may have any. Nobody else can take one between the choice and its use. */
import { expect, it } from "vitest";
import { OWNER_TOKEN, startOAuthServer } from "../setup/oauth-server.ts";

it("is used as chosen, and printed: each server answers at its own", async () => {
  const servers = [await startOAuthServer(), await startOAuthServer()];
  try {
    expect(new Set(servers.map(({ origin }) => origin)).size).toBe(2);
    for (const { origin } of servers) {
      expect(Number(new URL(origin).port)).toBeGreaterThan(0);
      const authorization = `Bearer ${OWNER_TOKEN}`;
      expect((await fetch(`${origin}/health`, { headers: { authorization } })).ok).toBe(true);
    }
  } finally {
    await Promise.all(servers.map((server) => server.close()));
  }
});
