/** Converts names of fields: `exit_code` in the protocol is `exitCode` here. */

type CamelName<Name> = Name extends `${infer Head}_${infer Tail}`
  ? `${Head}${Capitalize<CamelName<Tail>>}`
  : Name;

/** Data with converted names of fields, at any depth. */
export type Camel<T> = T extends readonly (infer Item)[]
  ? Camel<Item>[]
  : T extends object
    ? { [Name in keyof T as CamelName<Name>]: Camel<T[Name]> }
    : T;

export function toCamelCase<T>(value: T): Camel<T> {
  if (Array.isArray(value)) return value.map(toCamelCase) as Camel<T>;
  if (typeof value !== "object" || value === null) return value as Camel<T>;
  const fields = Object.entries(value).map(([name, field]) => [
    name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase()),
    toCamelCase(field),
  ]);
  return Object.fromEntries(fields) as Camel<T>;
}

/** The input of a tool. Only its own fields are renamed. The fields of `env` stay, because they are names of variables. */
export function toSnakeCase<T extends object>(input: Camel<T>): T {
  const fields = Object.entries(input).map(([name, field]) => [
    name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
    field,
  ]);
  return Object.fromEntries(fields) as T;
}
