/** The classic mistakes in the configuration of a deployment, each with the line to change. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { findNodeAtLocation, type Node, type ParseError, parse, parseTree } from "jsonc-parser";
import { z } from "zod";
import description from "../package.json" with { type: "json" };
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

/** The version of the SDK that this program belongs to, for a directory whose package.json does not say. */
const OWN_VERSION = description.devDependencies["@cloudflare/sandbox"];

/** The bindings that the Worker reads, with the classes of those that are Durable Objects. */
const CLASSES = ["Sandbox", "Account", "Attempts"];

/** The one of them that has a container. */
const CONTAINER_CLASS = "Sandbox";

/**
 * Types of containers on which an agent or a build runs, by wrangler's config-schema.json. It has `dev` and `lite` besides: they have
 * 256 MiB and less than a tenth of a processor.
 */
const LARGE_ENOUGH = ["basic", "standard", "standard-1", "standard-2", "standard-3", "standard-4"];

/** What each flag is for, for whoever leaves one out. */
const FLAGS: Readonly<Record<string, string>> = {
  nodejs_compat: "the SDK of the containers needs Node's modules",
  enable_request_signal: "without it the server does not notice that a client has gone",
  global_fetch_strictly_public: "without it OAuth fetches clients' metadata from inside the account, too",
};

/** The day that the Worker is written for, that of the repository's own configuration: with an earlier one the platform lacks what it uses. */
const WRITTEN_FOR = "2026-09-01";

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
      ...Object.entries(FLAGS).map(([flag, why]) =>
        this.#check(
          flag,
          flags.includes(flag),
          ["compatibility_flags"],
          `add "${flag}" to "compatibility_flags": ${why}`,
        ),
      ),
      this.#check(
        "compatibility_date",
        date !== undefined && isDay(date) && date >= WRITTEN_FOR && date <= today(),
        ["compatibility_date"],
        `set "compatibility_date": "${WRITTEN_FOR}", or a later day that is not to come`,
      ),
      this.#bindings(),
      this.#check(
        "migrations",
        unmigrated.length === 0,
        ["migrations"],
        `name ${unmigrated.join(", ")} in "new_sqlite_classes" of a migration, not in "new_classes": containers need SQLite`,
      ),
      this.#check(
        "container class",
        container?.class_name === CONTAINER_CLASS,
        ["containers", 0, "class_name"],
        `set "containers[0].class_name": "${CONTAINER_CLASS}", the class that has a container`,
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

  /** Each class has a binding of its own name, by which the Worker reads it. */
  #bindings(): Check {
    const { bindings } = this.#config.durable_objects;
    const fixes: string[] = [];
    const at: (string | number)[] = ["durable_objects", "bindings"];
    for (const wanted of CLASSES) {
      if (bindings.some(({ name, class_name }) => name === wanted && class_name === wanted)) continue;
      const index = bindings.findIndex(({ name, class_name }) => name === wanted || class_name === wanted);
      const { name, class_name } = bindings[index] ?? {};
      if (index < 0) fixes.push(`add { "name": "${wanted}", "class_name": "${wanted}" }`);
      else if (name === wanted) fixes.push(`set "class_name": "${wanted}" in place of "${class_name}"`);
      else
        fixes.push(
          `set "name": "${wanted}" in place of "${name}", since the Worker looks for it by its class`,
        );
      // The line of the first.
      if (fixes.length === 1 && index >= 0) at.push(index, name === wanted ? "class_name" : "name");
    }
    return this.#check(
      "binding names",
      fixes.length === 0,
      at,
      `in "durable_objects.bindings" ${fixes.join("; ")}`,
    );
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
    const { image, at } = lastStage(lines);
    const [, tag] = /(?:^|\/)cloudflare\/sandbox(?::([^@\s]+))?/.exec(image) ?? [];
    const wanted = packageVersion(this.#directory) ?? OWN_VERSION;
    if (tag !== undefined && (tag === wanted || tag.startsWith(`${wanted}-`)))
      return { name, verdict: "ok", found: tag };
    return {
      name,
      verdict: "failed",
      found: `${path}, line ${at + 1}: ${image || "no FROM"}`,
      fix: `FROM docker.io/cloudflare/sandbox:${wanted}-python, the version of @cloudflare/sandbox in package.json: its two halves speak to each other`,
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

const isDay = (text: string) => /^\d{4}-\d\d-\d\d$/.test(text);

const today = () => new Date().toISOString().slice(0, 10);

/** The image that the last stage of a Dockerfile begins with, and the index of its line: what `FROM` names may be a stage above. */
function lastStage(lines: readonly string[]): { image: string; at: number } {
  const stages = lines.flatMap((line, at) => {
    const [, image = "", name] = /^\s*FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?/i.exec(line) ?? [];
    return image === "" ? [] : [{ image, name: name?.toLowerCase(), at }];
  });
  let stage = stages.at(-1);
  for (let before = stages.length - 1; before > 0 && stage; before--) {
    const above = stages.slice(0, before).findLast(({ name }) => name === stage?.image.toLowerCase());
    if (above === undefined || above.at >= stage.at) break;
    stage = above;
  }
  return { image: stage?.image ?? "", at: stage?.at ?? 0 };
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
