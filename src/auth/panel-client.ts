/**
 * The panel as an OAuth client of this very server: people sign in to it on the consent page, by the same methods and with
 * the scopes they tick there, and its session is a grant as any other.
 */
import type { ClientInfo } from "@cloudflare/workers-oauth-provider";
import { DAY_MS } from "../shared/days.ts";
import { PANEL_CALLBACK_PATH } from "./paths.ts";

/** No registration gives a client this id: those of the provider are random. */
export const PANEL_CLIENT_ID = "panel";

/** How long a session lasts unless its person signs out. */
export const PANEL_SESSION_SECONDS = (7 * DAY_MS) / 1000;

/** `store`, in which the panel is registered as a client without being stored: nothing has to be set up, and nothing expires. */
export function withPanelClient(store: KVNamespace, issuer: string): KVNamespace {
  const client: ClientInfo = {
    clientId: PANEL_CLIENT_ID,
    clientName: "The panel of this server",
    redirectUris: [`${issuer}${PANEL_CALLBACK_PATH}`],
    grantTypes: ["authorization_code"],
    responseTypes: ["code"],
    tokenEndpointAuthMethod: "none",
  };
  return new Proxy(store, {
    get(target, name) {
      const member: unknown = Reflect.get(target, name);
      if (name !== "get" || typeof member !== "function") return member;
      return async (...given: unknown[]) =>
        given[0] === `client:${PANEL_CLIENT_ID}` ? client : Reflect.apply(member, target, given);
    },
  });
}
