/** The panel is an OAuth client of its own server: people sign in on the consent page, and a session is a grant. */
import type { ClientInfo } from "@cloudflare/workers-oauth-provider";
import { DAY_MS } from "../shared/days.ts";
import { interceptStore } from "./oauth-store.ts";
import { PANEL_CALLBACK_PATH } from "./paths.ts";

/** Registered clients have random ids, so none can have this one. */
export const PANEL_CLIENT_ID = "panel";

export const PANEL_SESSION_SECONDS = (7 * DAY_MS) / 1000;

/** Where the panel gets its codes. The provider also allows other ports of a loopback name, as native apps need (RFC 8252). */
export const panelCallback = ({ issuer }: { issuer: string }) => `${issuer}${PANEL_CALLBACK_PATH}`;

/** Wraps a store so that the panel counts as a registered client, which needs no set-up and never expires. */
export function addPanelClient(store: KVNamespace, issuer: string): KVNamespace {
  const client: ClientInfo = {
    clientId: PANEL_CLIENT_ID,
    clientName: "The panel of this server",
    redirectUris: [panelCallback({ issuer })],
    grantTypes: ["authorization_code"],
    responseTypes: ["code"],
    tokenEndpointAuthMethod: "none",
  };
  return interceptStore(store, (name, key, call) =>
    name === "get" && key === `client:${PANEL_CLIENT_ID}` ? Promise.resolve(client) : call(),
  );
}
