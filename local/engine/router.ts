/** The engine's HTTP interface; engine-protocol.ts lists it. */
import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { json as bodyOf } from "node:stream/consumers";
import * as z from "zod";
import {
  HOST_HEADER,
  SECRET_HEADER,
  SENT_SECRET_HEADER,
  URL_HEADER,
  type DiskSpace,
  type SyncRequest,
  interceptsSchema,
  policySchema,
  startSchema,
  syncSchema,
} from "../platform/engine-protocol.ts";
import { sendWithinPolicy } from "./egress.ts";
import type { SeenConnections } from "../../src/shared/connection-log.ts";
import { messageOf } from "../../src/shared/text.ts";
import { BODY_STALL_MS, isReachable, refuseUpgrade, sendError } from "./forward.ts";
import { endToEndHeaders } from "./outbound-queue.ts";
import { endStalled } from "./request-ends.ts";
import type { EngineSandbox } from "./engine-sandbox.ts";
import type { SandboxRegistry } from "./running-sandboxes.ts";
import { REQUEST_PROBLEMS } from "./texts.ts";

const signalSchema = z.object({ signal: z.int().min(1).max(64) });

interface RouterOptions {
  secret: string;
  /** The valid values of a request's `Host`. */
  hosts: readonly string[];
  boot: string;
  log: (line: string) => void;
  prepareAgent: (agent: string) => Promise<void>;
  diskSpace: () => Promise<DiskSpace>;
  syncObject: (object: SyncRequest) => Promise<void>;
}

/** wrangler adds this header to a Worker's requests. */
const ADDED_HEADER = "cf-worker";

export class Router {
  readonly #registry: SandboxRegistry;
  readonly #options: RouterOptions;
  readonly #digest: Buffer;

  constructor(registry: SandboxRegistry, options: RouterOptions) {
    this.#registry = registry;
    this.#options = options;
    this.#digest = digest(options.secret);
  }

  async request(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (!this.#isAuthorized(request)) return sendError(response, 401, "unauthorized", "unauthorized");
    try {
      await this.#route(request, response);
    } catch (error) {
      const text = messageOf(error);
      if (response.headersSent) response.destroy();
      else if (error instanceof z.ZodError || error instanceof SyntaxError) {
        sendError(response, 400, "bad-request", text);
      } else {
        this.#options.log(`engine: ${text}`);
        sendError(response, 503, "failed", text);
      }
    }
  }

  async upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    socket.on("error", () => undefined);
    if (!this.#isAuthorized(request)) return refuseUpgrade(socket, "401 Unauthorized", "unauthorized");
    const { id, part, rest } = parse(request.url ?? "");
    const sandbox = await this.#registry.find(id);
    if (sandbox === undefined || part !== "ports") return refuseUpgrade(socket, "404 Not Found", "gone");
    const { port, path } = parsePort(rest);
    if (!isReachable(port)) return refuseUpgrade(socket, "404 Not Found", "bad-request");
    await sandbox.forward.upgrade(port, path, request, socket, head);
  }

  async #route(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { id, part, rest } = parse(request.url ?? "");
    const route = `${request.method} ${part}`;
    const actor = /^\/actors\/([0-9a-f]+)\/internet$/.exec(request.url ?? "")?.[1];
    if (actor !== undefined) {
      const sandbox = this.#registry.findByActor(actor);
      if (sandbox === undefined) return sendError(response, 404, "gone", REQUEST_PROBLEMS.noSandbox);
      return await this.#internet(sandbox, request, response);
    }
    const agent = /^\/agents\/([\w-]+)$/.exec(request.url ?? "")?.[1];
    if (agent !== undefined && request.method === "PUT") {
      await this.#options.prepareAgent(agent);
      return json(response, {});
    }
    if (id === "") {
      if (request.url === "/boot") return json(response, { boot: this.#options.boot });
      if (request.url === "/disk") return json(response, await this.#options.diskSpace());
      if (route === "POST " && request.url === "/sync") {
        await this.#options.syncObject(syncSchema.parse(await bodyOf(request)));
        return json(response, {});
      }
      if (request.url === "/actors") return json(response, { actors: this.#registry.listActors() });
      if (route === "DELETE " && request.url === "/previews") {
        for (const sandbox of this.#registry.list()) sandbox.forward.endPreviews();
        return json(response, { running: this.#registry.listActors().length });
      }
      return sendError(response, 404, "bad-request", REQUEST_PROBLEMS.noRoute);
    }
    if (route === "PUT ") {
      await this.#registry.start(id, startSchema.parse(await bodyOf(request)));
      return json(response, {});
    }
    if (route === "DELETE ") {
      await this.#registry.destroy(id);
      return json(response, {});
    }
    const sandbox = await this.#registry.find(id);
    if (route === "GET exit") {
      const report = await this.#registry.waitForEnd(id);
      if (report !== undefined) return json(response, { ...report, seen: sandbox && connectionsOf(sandbox) });
    }
    if (sandbox === undefined) return sendError(response, 404, "gone", REQUEST_PROBLEMS.noSandbox);
    if (part === "ports") {
      const { port, path } = parsePort(rest);
      if (!isReachable(port))
        return sendError(response, 404, "bad-request", REQUEST_PROBLEMS.unreachable(port));
      return await sandbox.forward.request(port, path, request, response);
    }
    if (route === "POST signal") {
      sandbox.signal(signalSchema.parse(await bodyOf(request)).signal);
      return json(response, {});
    }
    if (route === "PUT intercepts") {
      await sandbox.setIntercepts(interceptsSchema.parse(await bodyOf(request)));
      return json(response, {});
    }
    if (route === "PUT policy") {
      sandbox.setPolicy(policySchema.parse(await bodyOf(request)));
      return json(response, {});
    }
    if (route === "GET connections") return json(response, connectionsOf(sandbox));
    if (route === "GET refusals")
      return json(response, sandbox.egress.connections.refusalsSince(Number(rest.slice(1))));
    if (route === "GET outbound") return sandbox.egress.queue.poll(rest.slice(1), response);
    if (route === "POST outbound")
      return sandbox.egress.queue.respond(Number(rest.slice(1)), request, response);
    sendError(response, 404, "bad-request", REQUEST_PROBLEMS.noRoute);
  }

  async #internet(sandbox: EngineSandbox, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = request.headers[URL_HEADER];
    if (typeof url !== "string" || !URL.canParse(url) || !/^https?:\/\//.test(url)) {
      return sendError(response, 400, "bad-request", REQUEST_PROBLEMS.noURL);
    }
    const ownHeaders = new Set([URL_HEADER, SECRET_HEADER, SENT_SECRET_HEADER, HOST_HEADER, ADDED_HEADER]);
    const headers = endToEndHeaders(request.rawHeaders).filter(
      ([name]) => !ownHeaders.has(name.toLowerCase()),
    );
    const secret = request.headers[SENT_SECRET_HEADER];
    endStalled(request, response, BODY_STALL_MS, () => response.destroy());
    const used = typeof secret === "string" ? secret : undefined;
    await sendWithinPolicy(sandbox.egress, request, response, new URL(url), headers, used);
  }

  /** Web pages in local browsers can send requests, but without the secret and, after DNS rebinding, without the right Host. */
  #isAuthorized(request: IncomingMessage): boolean {
    const isOwnHost = this.#options.hosts.includes(request.headers.host ?? "");
    const secret = request.headers[SECRET_HEADER];
    return isOwnHost && timingSafeEqual(digest(typeof secret === "string" ? secret : ""), this.#digest);
  }
}

function connectionsOf({ egress }: EngineSandbox): SeenConnections {
  const { log, refused, connections } = egress.connections;
  return { log, refused, connections };
}

/** Hashes a secret, because a constant-time comparison needs texts of equal length. */
function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

/** `/sandboxes/<id>/<part><rest>` */
function parse(url: string): { id: string; part: string; rest: string } {
  const match = /^\/sandboxes\/([A-Za-z0-9-]{1,64})(?:\/([a-z]+)(.*))?$/s.exec(url);
  return { id: match?.[1] ?? "", part: match?.[2] ?? "", rest: match?.[3] ?? "" };
}

function parsePort(rest: string): { port: number; path: string } {
  const match = /^\/(\d{1,5})(\/.*)?$/s.exec(rest);
  return { port: Number(match?.[1] ?? 0), path: match?.[2] ?? "/" };
}

function json(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { "content-type": "application/json" });
  response.end(JSON.stringify(value));
}
