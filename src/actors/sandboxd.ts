/** The sandboxd in this actor's container. It requires the actor's token. */
import { SANDBOXD_PORT, TOKEN_HEADER, TOKEN_VARIABLE } from "../../container/sandboxd/protocol.ts";
import type { Sandboxd } from "../container/requests.ts";
import type { ContainerPlatform } from "./platform/platform.ts";

/** Storage key of the token for sandboxd. */
const TOKEN_KEY = "sandboxd:token";

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

  used(): void {
    this.#platform.used();
  }
}
