import { RpcTarget } from "capnweb";
import type { InterpreterAPI } from "./interpreter.ts";

/** The SDK version whose container this runtime imitates; the SDK warns about any other. */
const SANDBOX_VERSION = "0.12.10";

/**
 * The control API on `/rpc`, with one target per domain, as the SDK's client addresses them. It has the methods that the actor
 * calls, and those that the SDK calls at a container's start. Calls of other methods fail.
 */
export class SandboxAPI extends RpcTarget {
  readonly #utils = new UtilsAPI();
  readonly #interpreter: InterpreterAPI;

  constructor(interpreter: InterpreterAPI) {
    super();
    this.#interpreter = interpreter;
  }

  get utils() {
    return this.#utils;
  }
  get interpreter() {
    return this.#interpreter;
  }
}

class UtilsAPI extends RpcTarget {
  ping(): string {
    return "healthy";
  }

  getVersion(): string {
    return SANDBOX_VERSION;
  }
}
