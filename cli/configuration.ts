/** The classic mistakes in the configuration of a deployment, each with the line to change. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { findNodeAtLocation, type Node, type ParseError, parse, parseTree } from "jsonc-parser";
import { z } from "zod";
import { ownerToken } from "../src/shared/env-fields.ts";
import { SECRET_VARIABLES } from "../src/shared/variables.ts";
import type { Check } from "./checks.ts";
import { PROGRAM } from "./server.ts";
import { keptVariables } from "./variables.ts";

const named = z.looseObject({ name: z.string().optional(), class_name: z.string().optional() });

/** What is read of wrangler's configuration. */
const wranglerSchema = z.looseObject({
  main: z.string().optional(),
  compatibility_date: z.string().optional(),
  compatibility_flags: z.array(z.string()).default([]),
  containers: z
    .array(
      z.looseObject({
        class_name: z.string().optional(),
        image: z.string().optional(),
        instance_type: z.unknown(),
        max_instances: z.number().optional(),
      }),
    )
    .default([]),
  durable_objects: z.looseObject({ bindings: z.array(named).default([]) }).default({ bindings: [] }),
  migrations: z
    .array(
      z.looseObject({
        new_sqlite_classes: z.array(z.string()).default([]),
        new_classes: z.array(z.string()).default([]),
      }),
    )
    .default([]),
  r2_buckets: z.array(z.looseObject({ binding: z.string().optional() })).default([]),
  kv_namespaces: z.array(z.looseObject({ binding: z.string().optional() })).default([]),
  vars: z.record(z.string(), z.unknown()).default({}),
});

const CONFIG = "wrangler.jsonc";

/** The bindings that the Worker reads, with the classes of those that are Durable Objects. */
const CLASSES = ["Sandbox", "Account", "Attempts"];

/**
 * Types of containers on which an agent or a build runs, by wrangler's config-schema.json. It has `dev` and `lite` besides: they have
 * 256 MiB and less than a tenth of a processor.
 */
const LARGE_ENOUGH = ["basic", "standard", "standard-1", "standard-2", "standard-3", "standard-4"];

const instanceType = z.union([
  z.enum(LARGE_ENOUGH),
  z.strictObject({ vcpu: z.number(), memory_mib: z.number(), disk_mb: z.number() }).partial(),
]);

/** Checks the directory of a deployment. Reads files, runs nothing, asks nobody. */
export function validate(directory: string): Check[] {
  const file = join(directory, CONFIG);
  if (!existsSync(file))
    return [{ name: CONFIG, verdict: "failed", found: `no ${file}`, fix: "Name the directory that has it." }];
  const text = readFileSync(file, "utf8");
  const errors: ParseError[] = [];
  const parsed = wranglerSchema.safeParse(parse(text, errors, { allowTrailingComma: true }));
  if (errors[0])
    return [
      {
        name: CONFIG,
        verdict: "failed",
        found: `no JSON at line ${lineAt(text, errors[0].offset)}`,
        fix: "Mend it.",
      },
    ];
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    return [
      {
        name: CONFIG,
        verdict: "failed",
        found: `${issue?.path.join(".")}: ${issue?.message}`,
        fix: "Mend it.",
      },
    ];
  }
  return new Validation(directory, text, parsed.data).checks();
}

type Config = z.infer<typeof wranglerSchema>;

class Validation {
  readonly #directory: string;
  readonly #text: string;
  readonly #tree: Node | undefined;
  readonly #config: Config;

  constructor(directory: string, text: string, config: Config) {
    this.#directory = directory;
    this.#text = text;
    this.#tree = parseTree(text, [], { allowTrailingComma: true });
    this.#config = config;
  }

  checks(): Check[] {
    const {
      compatibility_flags: flags,
      compatibility_date: date,
      durable_objects,
      migrations,
    } = this.#config;
    const bindings = durable_objects.bindings;
    const [container] = this.#config.containers;
    const unbound = CLASSES.filter(
      (name) => !bindings.some((each) => each.name === name && each.class_name === name),
    );
    const sqlite = new Set(migrations.flatMap((each) => each.new_sqlite_classes));
    const bound = bindings.map(({ class_name }) => class_name ?? "");
    const unmigrated = bound.filter((name) => !sqlite.has(name));
    const secrets = Object.keys(this.#config.vars).filter((name) => SECRET_VARIABLES.includes(name));
    const storage = new Set([
      ...this.#config.r2_buckets.map(({ binding }) => binding),
      ...this.#config.kv_namespaces.map(({ binding }) => binding),
    ]);
    return [
      this.#check(
        "main",
        this.#exists(this.#config.main),
        ["main"],
        `"main" must name the Worker's file, src/index.ts`,
      ),
      this.#check(
        "nodejs_compat",
        flags.includes("nodejs_compat"),
        ["compatibility_flags"],
        `add "nodejs_compat" to "compatibility_flags"`,
      ),
      this.#check(
        "compatibility_date",
        date !== undefined && /^\d{4}-\d\d-\d\d$/.test(date) && date <= new Date().toISOString().slice(0, 10),
        ["compatibility_date"],
        `"compatibility_date" must be a day that is not to come, such as "2026-09-01"`,
      ),
      this.#check(
        "binding names",
        unbound.length === 0,
        ["durable_objects", "bindings"],
        `add ${unbound.map((name) => `{ "name": "${name}", "class_name": "${name}" }`).join(", ")} to "durable_objects.bindings"`,
      ),
      this.#check(
        "migrations",
        unmigrated.length === 0,
        ["migrations"],
        `name ${unmigrated.join(", ")} in "new_sqlite_classes" of a migration, not in "new_classes": containers need SQLite`,
      ),
      this.#check(
        "container class",
        container?.class_name !== undefined && bound.includes(container.class_name),
        ["containers", 0, "class_name"],
        `"containers[0].class_name" must be that of a binding: "Sandbox"`,
      ),
      this.#exported(bound),
      this.#check(
        "instance type",
        instanceType.safeParse(container?.instance_type).success,
        ["containers", 0, "instance_type"],
        `"containers[0].instance_type" must be one of ${LARGE_ENOUGH.join(", ")}, or { "vcpu", "memory_mib", "disk_mb" } in numbers; an agent does not run on lite`,
      ),
      this.#check(
        "max_instances",
        (container?.max_instances ?? 0) > 0,
        ["containers", 0, "max_instances"],
        `set "containers[0].max_instances": it bounds the bill`,
      ),
      this.#image(container?.image),
      this.#check(
        "storage",
        storage.has("RESULTS") && storage.has("OAUTH_KV"),
        ["r2_buckets"],
        `add { "binding": "RESULTS" } to "r2_buckets" and { "binding": "OAUTH_KV" } to "kv_namespaces"`,
      ),
      this.#check(
        "no secret in vars",
        secrets.length === 0,
        ["vars", secrets[0] ?? ""],
        `take ${secrets.join(", ")} out of "vars", where all may read it: npx wrangler secret put ${secrets[0]}`,
      ),
      this.#token(),
    ];
  }

  #check(name: string, isRight: boolean, path: (string | number)[], fix: string): Check {
    if (isRight) return { name, verdict: "ok", found: `line ${this.#line(path)}` };
    return { name, verdict: "failed", found: `${CONFIG}, line ${this.#line(path)}`, fix };
  }

  /** The line of a value, or of what is nearest above it. */
  #line(path: (string | number)[]): number {
    for (let length = path.length; length > 0; length--) {
      const node = this.#tree && findNodeAtLocation(this.#tree, path.slice(0, length));
      if (node) return lineAt(this.#text, node.offset);
    }
    return 1;
  }

  #exists(path: string | undefined): boolean {
    return path !== undefined && existsSync(join(this.#directory, path));
  }

  #exported(classes: readonly string[]): Check {
    const name = "classes exported";
    const { main } = this.#config;
    if (!this.#exists(main)) return { name, verdict: "skipped", found: "there is no main" };
    const source = readFileSync(join(this.#directory, main ?? ""), "utf8");
    const lists = [...source.matchAll(/export\s*\{([^}]*)\}/g)].flatMap(([, list = ""]) => list.split(","));
    const exported = new Set([
      ...lists.map((each) =>
        each
          .trim()
          .split(/\s+as\s+/)
          .at(-1),
      ),
      ...[...source.matchAll(/export\s+(?:class|const)\s+(\w+)/g)].map(([, each]) => each),
    ]);
    // The SDK's interception of outbound requests needs the last.
    const missing = [...classes, "ContainerProxy"].filter((each) => !exported.has(each));
    return missing.length === 0
      ? { name, verdict: "ok", found: main ?? "" }
      : {
          name,
          verdict: "failed",
          found: `${main} lacks ${missing.join(", ")}`,
          fix: `export { ${missing.join(", ")} } from ${main}`,
        };
  }

  #image(path: string | undefined): Check {
    const name = "base image";
    if (path === undefined || !this.#exists(path))
      return this.#check(
        name,
        false,
        ["containers", 0, "image"],
        `"containers[0].image" must name the Dockerfile`,
      );
    const lines = readFileSync(join(this.#directory, path), "utf8").split("\n");
    const at = lines.findIndex((each) => /^FROM\s/.test(each));
    const tag = /cloudflare\/sandbox:(\d+\.\d+\.\d+)/.exec(lines[at] ?? "")?.[1];
    const wanted = packageVersion(this.#directory);
    if (wanted === undefined)
      return { name, verdict: "skipped", found: "package.json names no @cloudflare/sandbox" };
    if (tag === wanted) return { name, verdict: "ok", found: tag };
    return {
      name,
      verdict: "failed",
      found: `${path}, line ${at + 1}: ${tag ?? "not cloudflare/sandbox"}`,
      fix: `FROM docker.io/cloudflare/sandbox:${wanted}-python, the version of @cloudflare/sandbox in package.json`,
    };
  }

  #token(): Check {
    const name = ".dev.vars";
    const file = join(this.#directory, name);
    if (!existsSync(file)) return { name, verdict: "skipped", found: "there is none: npm start makes it" };
    const { SERVER_AUTH_TOKEN } = keptVariables(file);
    if (!SERVER_AUTH_TOKEN) return { name, verdict: "ok", found: "no token: npm start makes one" };
    const { error } = ownerToken.safeParse(SERVER_AUTH_TOKEN);
    const found = error?.issues.map(({ message }) => message).join("; ") ?? "";
    return error
      ? {
          name,
          verdict: "failed",
          found: `SERVER_AUTH_TOKEN ${found}`,
          fix: `${PROGRAM} token new makes one`,
        }
      : { name, verdict: "ok", found: "its token is long enough" };
  }
}

function packageVersion(directory: string): string | undefined {
  const file = join(directory, "package.json");
  if (!existsSync(file)) return undefined;
  const versions = z.record(z.string(), z.string()).default({});
  const parsed = z.looseObject({ dependencies: versions, devDependencies: versions });
  const { dependencies, devDependencies } = parsed.parse(JSON.parse(readFileSync(file, "utf8")));
  return { ...devDependencies, ...dependencies }["@cloudflare/sandbox"]?.replace(/^[~^]/, "");
}

function lineAt(text: string, offset: number): number {
  return text.slice(0, offset).split("\n").length;
}
