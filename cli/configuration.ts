/** Common mistakes in a deployment's configuration, each with the line to change. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { findNodeAtLocation, type Node, type ParseError, parse, parseTree } from "jsonc-parser";
import { z } from "zod";
import worker from "../src/package.json" with { type: "json" };
import { DURABLE_OBJECTS, SANDBOX_CLASSES } from "../src/shared/names.ts";
import { SECRET_VARIABLES, variables } from "../src/shared/variables.ts";
import { type Check, failed, ok } from "./checks.ts";
import { PROGRAM } from "./program-files.ts";
import { readVariablesFile } from "./dev-vars.ts";

const named = z.looseObject({ name: z.string().optional(), class_name: z.string().optional() });

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

/** The SDK version of this program, for a directory whose package.json does not state a version. */
const OWN_VERSION = worker.dependencies["@cloudflare/sandbox"];

/** Container types of wrangler's config-schema.json that are large enough for an agent. `dev` and `lite` have 256 MiB. */
const LARGE_ENOUGH = ["basic", "standard", "standard-1", "standard-2", "standard-3", "standard-4"];

const FLAGS: Readonly<Record<string, string>> = {
  nodejs_compat: "the SDK of the containers needs Node's modules",
  enable_request_signal: "without it the server does not notice that a client has disconnected",
  global_fetch_strictly_public: "without it OAuth fetches clients' metadata from inside the account, too",
};

/** The compatibility date of our own configuration. With an earlier date the platform lacks features that the Worker uses. */
const OWN_COMPATIBILITY_DATE = "2026-09-01";

const instanceType = z.union([
  z.enum(LARGE_ENOUGH),
  z.strictObject({ vcpu: z.number(), memory_mib: z.number(), disk_mb: z.number() }).partial(),
]);

/** Checks a deployment's directory. Only reads files. */
export function validate(directory: string): Check[] {
  const file = join(directory, CONFIG);
  if (!existsSync(file))
    return [failed(CONFIG, `no ${file}`, "Pass the directory that has this file as an argument.")];
  const text = readFileSync(file, "utf8");
  const errors: ParseError[] = [];
  const parsed = wranglerSchema.safeParse(parse(text, errors, { allowTrailingComma: true }));
  if (errors[0]) {
    const found = `not valid JSON at line ${lineAt(text, errors[0].offset)}`;
    return [failed(CONFIG, found, "Correct the syntax there.")];
  }
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const found = `${issue?.path.join(".")}: ${issue?.message}`;
    return [failed(CONFIG, found, "Correct the value; docs/guides/deploy.md has an example.")];
  }
  const tree = parseTree(text, [], { allowTrailingComma: true });
  const values = requirementsOf(parsed.data, directory).map(({ name, path, isRight, fix }): Check => {
    const at = `line ${lineOf(text, tree, path)}`;
    return isRight ? ok(name, at) : failed(name, `${CONFIG}, ${at}`, fix);
  });
  const images = new Set(containersOf(parsed.data).map(([{ image }]) => image));
  return [...values, ...[...images].map((image) => baseImage(directory, image)), devVars(directory)];
}

type Config = z.infer<typeof wranglerSchema>;

type ContainerConfig = Partial<Config["containers"][number]>;

const isSandboxClass = ({ class_name }: ContainerConfig) => SANDBOX_CLASSES.some((own) => own === class_name);

/**
 * The containers of the classes of sandboxes, with their indexes. If there is none, the first container, so that the checks name
 * the mistake.
 */
function containersOf({ containers }: Config): [container: ContainerConfig, index: number][] {
  const rows = containers.map((container, index): [ContainerConfig, number] => [container, index]);
  const own = rows.filter(([container]) => isSandboxClass(container));
  return own.length > 0 ? own : [[containers[0] ?? {}, 0]];
}

/** A required value: its path in the file, whether it is right, and what to do if it is not. */
interface Required {
  name: string;
  path: (string | number)[];
  isRight: boolean;
  fix: string;
}

/** The common mistakes. `wrangler deploy --dry-run` finds others, such as a class that is not exported. */
function requirementsOf(config: Config, directory: string): Required[] {
  const { compatibility_flags: flags, compatibility_date: date } = config;
  const bindings = config.durable_objects.bindings;
  const sqlite = new Set(config.migrations.flatMap((each) => each.new_sqlite_classes));
  const bound = bindings.map(({ class_name }) => class_name ?? "");
  const unmigrated = bound.filter((name) => !sqlite.has(name));
  const secrets = Object.keys(config.vars).filter((name) => SECRET_VARIABLES.includes(name));
  const hasBinding = (list: readonly { binding?: string }[], wanted: string) =>
    list.some(({ binding }) => binding === wanted);
  return [
    {
      name: "main",
      path: ["main"],
      isRight: existsIn(directory, config.main),
      fix: `"main" must name the Worker's file, src/index.ts`,
    },
    ...Object.entries(FLAGS).map(([flag, why]) => ({
      name: flag,
      path: ["compatibility_flags"],
      isRight: flags.includes(flag),
      fix: `add "${flag}" to "compatibility_flags": ${why}`,
    })),
    {
      name: "compatibility_date",
      path: ["compatibility_date"],
      isRight: date !== undefined && isDay(date) && date >= OWN_COMPATIBILITY_DATE && date <= today(),
      fix: `set "compatibility_date": "${OWN_COMPATIBILITY_DATE}", or a later day that is not in the future`,
    },
    ...DURABLE_OBJECTS.map((wanted) => {
      const index = bindings.findIndex(({ name, class_name }) => name === wanted || class_name === wanted);
      const { name, class_name } = bindings[index] ?? {};
      const path = ["durable_objects", "bindings"];
      return {
        name: `binding ${wanted}`,
        path: index < 0 ? path : [...path, index, name === wanted ? "class_name" : "name"],
        isRight: name === wanted && class_name === wanted,
        fix: `"durable_objects.bindings" must have { "name": "${wanted}", "class_name": "${wanted}" }: the Worker finds the class by this name`,
      };
    }),
    {
      name: "migrations",
      path: ["migrations"],
      isRight: unmigrated.length === 0,
      fix: `name ${unmigrated.join(", ")} in "new_sqlite_classes" of a migration, not in "new_classes": containers need SQLite`,
    },
    ...containersOf(config).flatMap(([container, index]) =>
      containerRequirements(container, index, directory),
    ),
    {
      name: "storage",
      path: ["r2_buckets"],
      isRight: hasBinding(config.r2_buckets, "RESULTS") && hasBinding(config.kv_namespaces, "OAUTH_KV"),
      fix: `add { "binding": "RESULTS" } to "r2_buckets" and { "binding": "OAUTH_KV" } to "kv_namespaces"`,
    },
    {
      name: "no secret in vars",
      path: ["vars", secrets[0] ?? ""],
      isRight: secrets.length === 0,
      fix: `take ${secrets.join(", ")} out of "vars", which is stored as plain text: npx wrangler secret put ${secrets[0]}`,
    },
  ];
}

function containerRequirements(container: ContainerConfig, index: number, directory: string): Required[] {
  const { instance_type, max_instances = 0, image } = container;
  const at = `containers[${index}]`;
  return [
    {
      name: "container class",
      path: ["containers", index, "class_name"],
      isRight: isSandboxClass(container),
      fix: `set "${at}.class_name": "${SANDBOX_CLASSES.join('" or "')}", the class that has a container`,
    },
    {
      name: "instance type",
      path: ["containers", index, "instance_type"],
      isRight: instanceType.safeParse(instance_type).success,
      fix: `"${at}.instance_type" must be one of ${LARGE_ENOUGH.join(", ")}, or { "vcpu", "memory_mib", "disk_mb" } in numbers; an agent does not run on lite`,
    },
    {
      name: "max_instances",
      path: ["containers", index, "max_instances"],
      isRight: max_instances > 0,
      fix: `set "${at}.max_instances": it limits the cost`,
    },
    {
      name: "image",
      path: ["containers", index, "image"],
      isRight: existsIn(directory, image),
      fix: `"${at}.image" must name the Dockerfile`,
    },
  ];
}

const existsIn = (directory: string, path: string | undefined) =>
  path !== undefined && existsSync(join(directory, path));

/** The line of a value, or of its nearest existing parent. */
function lineOf(text: string, tree: Node | undefined, path: readonly (string | number)[]): number {
  for (let length = path.length; length > 0; length--) {
    const node = tree && findNodeAtLocation(tree, path.slice(0, length));
    if (node) return lineAt(text, node.offset);
  }
  return 1;
}

/**
 * Checks each image of the SDK in the Dockerfile. Its version must be the SDK's, and it must contain Python, because otherwise no
 * Python kernel starts.
 */
function baseImage(directory: string, path: string | undefined): Check {
  const name = "base image";
  if (!existsIn(directory, path)) return { name, verdict: "skipped", found: "there is no Dockerfile" };
  const text = readFileSync(join(directory, path ?? ""), "utf8");
  const expectedTag = `${packageVersion(directory) ?? OWN_VERSION}-python`;
  const images = [...text.matchAll(/^[ \t]*FROM[^\n]*?cloudflare\/sandbox(?::([^@\s]+))?/gim)];
  const mismatch = images.find(([, tag]) => tag !== expectedTag);
  if (images.length > 0 && !mismatch) return ok(name, expectedTag);
  return failed(
    name,
    mismatch
      ? `${path}, line ${lineAt(text, mismatch.index)}: ${mismatch[0].trim()}`
      : `${path}: no cloudflare/sandbox image`,
    `FROM docker.io/cloudflare/sandbox:${expectedTag}: its version must be that of @cloudflare/sandbox in package.json, and Python kernels need -python`,
  );
}

function devVars(directory: string): Check {
  const name = ".dev.vars";
  const file = join(directory, name);
  if (!existsSync(file))
    return { name, verdict: "skipped", found: "there is no .dev.vars: npm start creates it" };
  const { SERVER_AUTH_TOKEN } = readVariablesFile(file);
  if (!SERVER_AUTH_TOKEN) return ok(name, "it has no token: npm start generates one");
  const { error } = variables.SERVER_AUTH_TOKEN.schema.safeParse(SERVER_AUTH_TOKEN);
  if (!error) return ok(name, "its token is long enough");
  const found = error.issues.map(({ message }) => message).join("; ");
  return failed(name, `SERVER_AUTH_TOKEN ${found}`, `${PROGRAM} token new generates a valid token`);
}

const isDay = (text: string) => /^\d{4}-\d\d-\d\d$/.test(text);

const today = () => new Date().toISOString().slice(0, 10);

function packageVersion(directory: string): string | undefined {
  const versions = z.record(z.string(), z.string()).default({});
  const schema = z.looseObject({ dependencies: versions, devDependencies: versions });
  for (const file of ["src/package.json", "package.json"].map((name) => join(directory, name))) {
    if (!existsSync(file)) continue;
    const { dependencies, devDependencies } = schema.parse(JSON.parse(readFileSync(file, "utf8")));
    const version = { ...devDependencies, ...dependencies }["@cloudflare/sandbox"];
    if (version !== undefined) return version.replace(/^[~^]/, "");
  }
  return undefined;
}

function lineAt(text: string, offset: number): number {
  return text.slice(0, offset).split("\n").length;
}
