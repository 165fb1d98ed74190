/** The rules of the table of file operations, tested for every row. */
import { env } from "cloudflare:workers";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Input, type OperationName, operations } from "../../../container/sandboxd/operations.ts";
import type { Owner } from "../../../src/actors/account-calls.ts";
import { operate } from "../../../src/actors/sandbox-client.ts";
import type { Env } from "../../../src/shared/config.ts";
import { SCOPES } from "../../../src/shared/principal.ts";
import { actorOf, owner, sh } from "../support.ts";

const sandbox = "operations";
const path = "/etc/of-another";

/** The arguments of one call of each operation, on a path outside /workspace. */
const TRIES: { [Name in OperationName]: () => Input<Name> } = {
  read: () => ({ path, offset: 0, limit: 1 }),
  readLines: () => ({ path, offset: 1, limit: 1, max: 1 }),
  open: () => ({ path, offset: 0, limit: 1 }),
  archive: () => ({ path: "/etc", format: "zip" }),
  list: () => ({ path: "/etc", depth: 1, limit: 1 }),
  glance: () => ({ path: "/etc", depth: 1, limit: 1 }),
  stat: () => ({ path }),
  write: () => ({ path, body: new Uint8Array(1) }),
  append: () => ({ path, body: new Uint8Array(1) }),
  store: () => ({ path, body: new Blob(["x"]).stream(), length: 1 }),
  edit: () => ({ path, body: [{ old_text: "mine", new_text: "x", all: true }] }),
  remove: () => ({ path }),
  shrink: () => ({ body: new Uint8Array(1) }),
};

const names = Object.keys(TRIES) as OperationName[];

const pathFields = (name: OperationName) =>
  Object.entries(TRIES[name]()).flatMap(([field, value]) => (String(value).startsWith("/") ? [field] : []));

/** Returns the error, or undefined on success. @param more arguments that replace those of `TRIES` */
const failure = (name: OperationName, options: Pick<Owner, "sandbox" | "scopes">, more = {}) =>
  operate(env as Env, { ...options, principalID: owner.principalID }, name, {
    ...TRIES[name](),
    ...more,
  } as never).then(
    () => undefined,
    (error: { code?: string; message: string }) => error,
  );
const refusal = async (...call: Parameters<typeof failure>) => (await failure(...call))?.code;
const isAlive = async (name: string) => (await (await actorOf(name)).condition()).isAlive;

describe("the file operation", () => {
  beforeAll(() => sh(sandbox, `echo mine >${path}; echo mine >inside`));
  afterAll(() => owner.call("destroy_sandbox", { sandbox }));

  it.each(names.filter((name) => operations[name].scope !== undefined))(
    "%s is refused without its scope, before anything is started",
    async (name) => {
      const scopes = SCOPES.filter((scope) => scope !== operations[name].scope);
      expect(await refusal(name, { sandbox: "operations-refused", scopes })).toBe("permission_denied");
      expect(await isAlive("operations-refused")).toBe(false);
    },
  );

  const confined = names.filter((name) => operations[name].confined);
  it.each(confined.flatMap((name) => pathFields(name).map((field) => [name, field] as const)))(
    "%s without sandbox:exec is refused if its %s is outside /workspace and /tmp",
    async (name, field) => {
      const others = pathFields(name).filter((other) => other !== field);
      const inside = Object.fromEntries(others.map((other) => [other, "/workspace/inside"]));
      expect(await refusal(name, { sandbox, scopes: ["sandbox:write"] }, inside)).toBe("permission_denied");
      expect(await sh(sandbox, `cat ${path}`)).toBe("mine\n");
    },
  );

  it.each(names.flatMap((name) => pathFields(name).map((field) => [name, field] as const)))(
    "%s names its %s if that path is the reason why it fails",
    async (name, field) => {
      const belowFile = "/workspace/inside/below-a-file";
      const paths = pathFields(name).map((each) => [each, each === field ? belowFile : "/workspace/inside"]);
      const failed = await failure(name, { sandbox, scopes: SCOPES }, Object.fromEntries(paths));
      expect(failed?.message).toContain(belowFile);
    },
  );

  it.each(names.filter((name) => operations[name].start !== "new"))(
    "%s does not create a sandbox",
    async (name) => {
      expect(await refusal(name, { sandbox: "operations-unused", scopes: SCOPES })).toBe("not_found");
      expect(await isAlive("operations-unused")).toBe(false);
    },
  );
});
