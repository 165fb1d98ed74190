/**
 * A client's metadata document cannot make a local server connect into the user's network, also behind a public
 * origin.
 */
import { type AddressInfo, createServer, type Server } from "node:net";
import { hostname } from "node:os";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Browser, Client } from "../setup/oauth-client.ts";
import { startOAuthServer } from "../setup/oauth-server.ts";
import { web } from "../setup/sign-in.ts";

describe("a client's document on the local platform", () => {
  const PUBLIC_ORIGIN = "https://sandbox.example";
  let target: Server;
  let port: number;
  let connections = 0;

  beforeAll(async () => {
    target = createServer((socket) => {
      connections += 1;
      socket.destroy();
    });
    await new Promise<void>((resolve) => target.listen(0, "0.0.0.0", resolve));
    port = (target.address() as AddressInfo).port;
  });
  afterAll(() => void target.close());

  /** Requests the sign-in page, without a credential, for clients with a document at each of these hosts. */
  async function ask(variables: Record<string, string>, hosts: readonly string[]) {
    connections = 0;
    const { origin } = await startOAuthServer(variables);
    for (const host of hosts) {
      const client = new Client(web, `https://${host}:${port}/client.json`, undefined, origin);
      const url = await client.authorizationURL({ resource: `${PUBLIC_ORIGIN}/mcp` });
      expect((await new Browser(web).open(url)).status).toBe(400);
    }
    const metadata = await fetch(`${origin}/.well-known/oauth-authorization-server`);
    const announced: { client_id_metadata_document_supported?: boolean } = await metadata.json();
    return { connections, announced: announced.client_id_metadata_document_supported };
  }

  const hosts = ["127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]", hostname()];

  it("is not fetched from this machine, whatever name the URL has for it, if PUBLIC_ORIGIN is set", async () => {
    expect(await ask({ PUBLIC_ORIGIN }, hosts)).toEqual({ connections: 0, announced: false });
  });

  it("is not fetched from this machine if OAUTH_CLIENT_METADATA is blank", async () => {
    expect(await ask({ PUBLIC_ORIGIN, OAUTH_CLIENT_METADATA: " " }, hosts.slice(0, 1))).toEqual({
      connections: 0,
      announced: false,
    });
  });

  it("is fetched from any host if OAUTH_CLIENT_METADATA is on", async () => {
    const outcome = await ask({ PUBLIC_ORIGIN, OAUTH_CLIENT_METADATA: "on" }, hosts);
    expect(outcome).toEqual({ connections: expect.any(Number), announced: true });
    expect(outcome.connections).toBeGreaterThan(0);
  });
});
