/** The environment variables that `configure_sandbox` set, for every command, kernel and task of a sandbox. */
import { MAX_VARIABLES, VARIABLES_BYTES, type Variables } from "../../container/sandboxd/protocol.ts";
import { type KV, StoredValue } from "./stored-value.ts";
import { tooManyVariables } from "./texts.ts";

/** The maximum number of removed variables to remember. Sessions and kernels that still have one remove it at their next run. */
const MAX_REMOVED = 200;

export class SandboxVariables {
  readonly #stored: StoredValue<Variables>;

  constructor(kv: KV) {
    this.#stored = new StoredValue(kv, "variables");
  }

  /** Undefined if no variable was ever set. */
  get current(): Variables | undefined {
    return this.#stored.value;
  }

  get names(): string[] {
    return namesOf(this.current);
  }

  get values(): Record<string, string> {
    const entries = this.current?.entries ?? [];
    return Object.fromEntries(entries.flatMap(({ name, value }) => (value === null ? [] : [[name, value]])));
  }

  /** The variables after these changes. An empty value removes a variable. @throws {ToolError} `too_large` */
  applyChanges(changes: Readonly<Record<string, string>>): Variables {
    const { version, entries } = this.current ?? { version: 0, entries: [] };
    const next = version + 1;
    const merged = new Map(entries.map((entry) => [entry.name, entry]));
    for (const [name, value] of Object.entries(changes)) {
      // Even the same value gets the new version, so that sessions that have changed the variable get the value again.
      merged.delete(name);
      merged.set(name, { name, value: value === "" ? null : value, version: next });
    }
    const all = [...merged.values()];
    const set = all.filter(({ value }) => value !== null);
    const bytes = set.reduce((sum, { name, value }) => sum + sizeOf(name) + sizeOf(value ?? ""), 0);
    if (set.length > MAX_VARIABLES || bytes > VARIABLES_BYTES)
      throw tooManyVariables({ count: set.length, bytes }, { count: MAX_VARIABLES, bytes: VARIABLES_BYTES });
    const removed = all.filter(({ value }) => value === null).slice(-MAX_REMOVED);
    return { version: next, entries: [...removed, ...set] };
  }

  put(variables: Variables | undefined): void {
    this.#stored.value = variables;
  }
}

export function namesOf(variables: Variables | undefined): string[] {
  return (variables?.entries ?? []).flatMap(({ name, value }) => (value === null ? [] : name)).sort();
}

const encoder = new TextEncoder();

function sizeOf(text: string): number {
  return encoder.encode(text).length;
}
