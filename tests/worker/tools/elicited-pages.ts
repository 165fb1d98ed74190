/** The whole server, for tests of the pages that an elicitation by URL opens. */
import { createExecutionContext } from "cloudflare:test";
import { env } from "cloudflare:workers";
import worker from "../../../src/index.ts";
import type { Env } from "../../../src/shared/config.ts";
import type { App } from "../auth/support.ts";
import { TOKEN } from "../server/support.ts";
import { Caller, ORIGIN } from "../support.ts";

export const variables: Env = {
  ...(env as Env),
  SERVER_AUTH_TOKEN: TOKEN,
  PUBLIC_ORIGIN: ORIGIN,
  LOG_LEVEL: "error",
};

/** The server with other variables. */
export const appOf =
  (more: Partial<Env> = {}): App =>
  (url, init) =>
    worker.fetch(new Request(url, init), { ...variables, ...more }, createExecutionContext());

export const app = appOf();
export const owner = new Caller("owner", TOKEN, variables);
