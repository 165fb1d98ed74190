/** The sandboxd in this actor's container. It requires the actor's token. */
import {
  IS_ENDING,
  OPEN_PREVIEWS,
  SANDBOXD_PORT,
  TOKEN_HEADER,
  TOKEN_VARIABLE,
} from "../../container/sandboxd/protocol.ts";
import type { Sandboxd } from "../container/requests.ts";
import type { ContainerPlatform } from "./platform/platform.ts";

/** Storage key of the token for sandboxd. */
const TOKEN_KEY = "sandboxd:token";

/** How long sandboxd may take to report about itself, in milliseconds. */
const ASK_MS = 2000;

export interface SandboxdReport {
  /** Open requests and WebSockets for ports. */
  openPreviews: number;
  /** Its container does not end. False also if an earlier version does not say. */
  isServing: boolean;
}

export class OwnSandboxd implements Sandboxd {
  readonly #platform: ContainerPlatform;
  readonly #kv: Pick<SyncKvStorage, "get" | "put">;

  constructor(platform: ContainerPlatform, kv: Pick<SyncKvStorage, "get" | "put">) {
    this.#platform = platform;
    this.#kv = kv;
  }

  get isRunning(): boolean {
    return this.#platform.isRunning;
  }

  get variables(): Record<string, string> {
    return { [TOKEN_VARIABLE]: this.#token };
  }

  /** sandboxd's token. Containers started by an earlier version of this server require none. */
  get #token(): string {
    const known = this.#kv.get<string>(TOKEN_KEY);
    if (known !== undefined) return known;
    const made = crypto.randomUUID() + crypto.randomUUID();
    this.#kv.put(TOKEN_KEY, made);
    return made;
  }

  isToken(token: string): boolean {
    return token === this.#token;
  }

  /** Sends a request to sandboxd with its token. @param request made by this actor */
  fetch(request: Request): Promise<Response> {
    request.headers.set(TOKEN_HEADER, this.#token);
    return this.#platform.fetch(SANDBOXD_PORT, request);
  }

  /** What sandboxd says about itself; undefined if it does not respond. */
  async report(): Promise<SandboxdReport | undefined> {
    const signal = AbortSignal.timeout(ASK_MS);
    const request = new Request("http://sandboxd/", { signal });
    const response = await this.fetch(request).catch(() => undefined);
    await response?.body?.cancel().catch(() => undefined);
    if (response === undefined) return undefined;
    return {
      openPreviews: Number(response.headers.get(OPEN_PREVIEWS)),
      isServing: response.headers.get(IS_ENDING) === "false",
    };
  }

  used(): void {
    this.#platform.used();
  }
}
