/** The interpreters of a container, which run code in contexts. */
import type { Language } from "../../shared/languages.ts";
import type { CellResponse } from "./kernel-protocol.ts";

export interface Interpreter {
  /** @throws {InterpreterError} `no_language`, `not_created` */
  createContext(language: Language): Promise<{ id: string }>;
  /** May never settle if its kernel dies. @throws {InterpreterError} `context_gone` if the code did not run */
  run(code: string, contextID: string): Promise<CellResponse>;
  /** May take long. */
  deleteContext(id: string): Promise<void>;
  /** Settles calls that never return because their kernel died. Until then the platform counts the sandbox as used. */
  settleAbandoned(): void;
}

export class InterpreterError extends Error {
  readonly kind: "no_language" | "not_created" | "context_gone";

  constructor(kind: InterpreterError["kind"], message: string) {
    super(message);
    this.kind = kind;
  }
}
