import { RpcTarget } from "capnweb";
import worker from "../../src/package.json" with { type: "json" };
import type { InterpreterAPI } from "./interpreter.ts";

/** This runtime imitates the container of this SDK version. The SDK warns about any other version. */
const SANDBOX_VERSION = worker.dependencies["@cloudflare/sandbox"];

/**
 * The control API on `/rpc`, one target per domain. It has only the methods that the actor uses, and those that the SDK uses when
 * it starts.
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
