/** The environment variables that `configure_sandbox` set, for every command, kernel and task of a sandbox. */
import { MAX_VARIABLES, VARIABLES_BYTES, type Variables } from "../../container/sandboxd/protocol.ts";
import { type ToolError } from "../shared/errors.ts";
import { tooManyVariables } from "./texts.ts";

const KEY = "variables";

/** The most removed names to remember, for sessions and kernels that still have them. */
const MAX_REMOVED = 200;

export class SandboxVariables {
  readonly #kv: SyncKvStorage;
  #variables: Variables | undefined;

  constructor(kv: SyncKvStorage) {
    this.#kv = kv;
    this.#variables = kv.get<Variables>(KEY);
  }

  /** Undefined if there were never any, so that calls carry nothing. */
  get current(): Variables | undefined {
    return this.#variables;
  }

  get names(): string[] {
    return namesOf(this.#variables);
  }

  get values(): Record<string, string> {
    const entries = this.#variables?.entries ?? [];
    return Object.fromEntries(entries.flatMap(({ name, value }) => (value === null ? [] : [[name, value]])));
  }

  /** The variables after these changes. An empty value removes a variable. @throws {ToolError} `too_large` */
  changed(changes: Readonly<Record<string, string>>): Variables {
    const { version, entries } = this.#variables ?? { version: 0, entries: [] };
    const next = version + 1;
    const merged = new Map(entries.map((entry) => [entry.name, entry]));
    for (const [name, value] of Object.entries(changes)) {
      // Setting a value again applies it to sessions that have changed it.
      merged.delete(name);
      merged.set(name, { name, value: value === "" ? null : value, version: next });
    }
    const all = [...merged.values()];
    const set = all.filter(({ value }) => value !== null);
    const bytes = set.reduce((sum, { name, value }) => sum + sizeOf(name) + sizeOf(value ?? ""), 0);
    if (set.length > MAX_VARIABLES || bytes > VARIABLES_BYTES) throw tooLarge(set.length, bytes);
    const removed = all.filter(({ value }) => value === null).slice(-MAX_REMOVED);
    return { version: next, entries: [...removed, ...set] };
  }

  put(variables: Variables): void {
    this.#variables = variables;
    this.#kv.put(KEY, variables);
  }

  forget(): void {
    this.#variables = undefined;
    this.#kv.delete(KEY);
  }
}

export function namesOf(variables: Variables | undefined): string[] {
  return (variables?.entries ?? []).flatMap(({ name, value }) => (value === null ? [] : name)).sort();
}

const encoder = new TextEncoder();

function sizeOf(text: string): number {
  return encoder.encode(text).length;
}

function tooLarge(count: number, bytes: number): ToolError {
  return tooManyVariables({ count, bytes }, { count: MAX_VARIABLES, bytes: VARIABLES_BYTES });
}
