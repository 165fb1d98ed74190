/** The steps of a deployment to Cloudflare, done or described by `sandbox-mcp deploy`. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { applyEdits, modify, parse } from "jsonc-parser";
import { z } from "zod";
import { fromEnv } from "../src/shared/env-fields.ts";
import { HIDDEN_VARIABLES, variables } from "../src/shared/variables.ts";
import { quietWrangler } from "./bundle.ts";
import { validate } from "./configuration.ts";
import { CommandError, EXIT, STOP_SIGNALS } from "./exit.ts";
import { docker } from "./machine.ts";
import { keepCopy } from "./output-files.ts";
import { newToken } from "./rotation.ts";
import * as texts from "./texts.ts";

interface DeploymentOptions {
  /** The directory of wrangler.jsonc. */
  directory: string;
  /** A program and its first arguments. */
  wrangler: readonly [string, ...string[]];
  /** The parent host of previews, in a zone of the account. */
  previewHost?: string | undefined;
  publicOrigin?: string | undefined;
  env: Readonly<Record<string, string | undefined>>;
  isAttended: boolean;
  isDryRun: boolean;
  print(line: string): void;
}

interface Step {
  name: string;
  /** What the step does, and the manual command if there is one. */
  plan: string;
  /** The result; undefined for a step that was only described. */
  found?: string;
}

const CONFIG = "wrangler.jsonc";

export class Deployment {
  readonly steps: Step[] = [];
  url: string | undefined;
  /** The owner's token, if known: generated here, or from the environment. */
  token: string | undefined;
  readonly #options: DeploymentOptions;
  #child: ChildProcess | undefined;
  /** A temporary directory, for wrangler's files and for secrets until they are sent. */
  readonly #scratch: string;

  constructor(options: DeploymentOptions) {
    this.#options = options;
    this.#scratch = mkdtempSync(join(tmpdir(), "sandbox-mcp-deploy-"));
  }

  /** @throws {CommandError} with what to do if a step fails */
  async run(): Promise<void> {
    // A signal must not leave the secrets in a file. The terminal's Ctrl-C reaches wrangler too, other signals do not.
    const stop = (signal: NodeJS.Signals) => {
      this.#child?.kill(signal);
      rmSync(this.#scratch, { recursive: true, force: true });
      this.#options.print(texts.DEPLOYMENT.stopped);
      process.exit(EXIT.cancelled);
    };
    for (const signal of STOP_SIGNALS) process.once(signal, stop);
    try {
      await this.#step("configuration", texts.DEPLOYMENT.validate(CONFIG), () => this.#validate());
      await this.#step("Docker", texts.DEPLOYMENT.docker, () => this.#requireDocker());
      if (this.#options.previewHost !== undefined || this.#options.publicOrigin !== undefined)
        await this.#change("hosts", this.#hostsPlan(), () => this.#writeHosts());
      await this.#change("login", texts.DEPLOYMENT.logIn, () => this.#logIn());
      let secrets: Record<string, string> = {};
      await this.#change("secrets", this.#secretsPlan(), async () => {
        secrets = await this.#newSecrets();
        return Object.keys(secrets).join(", ") || "no new secret is needed";
      });
      this.#print("storage", texts.DEPLOYMENT.storage);
      await this.#step("build", texts.DEPLOYMENT.build, () => this.#build());
      await this.#change("image and Worker", texts.DEPLOYMENT.deploy, () => this.#deploy(secrets));
      if (this.#options.previewHost !== undefined)
        this.#print("wildcard host", texts.DEPLOYMENT.wildcard(this.#options.previewHost));
    } finally {
      for (const signal of STOP_SIGNALS) process.off(signal, stop);
      rmSync(this.#scratch, { recursive: true, force: true });
    }
  }

  #print(name: string, plan: string): Step {
    const step: Step = { name, plan };
    this.steps.push(step);
    this.#options.print(`${this.steps.length}. ${name}: ${plan}`);
    return step;
  }

  /** Does a step, also in a dry run. A step that changes anything but local builds goes through `#change`. */
  async #step(name: string, plan: string, work: () => Promise<string>): Promise<void> {
    const step = this.#print(name, plan);
    step.found = await work();
    this.#options.print(`   ${step.found}`);
  }

  /** A step that a dry run only describes. */
  async #change(name: string, plan: string, work: () => Promise<string>): Promise<void> {
    if (this.#options.isDryRun) this.#print(name, plan);
    else await this.#step(name, plan, work);
  }

  async #validate(): Promise<string> {
    const failed = validate(this.#options.directory).filter(({ verdict }) => verdict === "failed");
    if (failed.length === 0) return "no mistake found";
    const lines = failed.map(({ name, found, fix }) => `${name} (${found}): ${fix}`);
    throw texts.configurationWrong(CONFIG, lines);
  }

  async #requireDocker(): Promise<string> {
    const { verdict, found, fix } = await docker();
    if (verdict === "ok") return found;
    if (this.#options.isDryRun) return `${found}: ${fix}`;
    throw texts.dockerMissing(found, fix);
  }

  /** @throws {CommandError} for values that the server would refuse */
  #hosts(): { previewHost?: string | undefined; publicOrigin?: string | undefined } {
    const hosts = z.object({
      previewHost: fromEnv(variables.PREVIEW_HOST.schema, undefined),
      publicOrigin: fromEnv(variables.PUBLIC_ORIGIN.schema, undefined),
    });
    const { data, error } = hosts.safeParse(this.#options);
    if (data) return data;
    const [issue] = error.issues;
    const flag = issue?.path[0] === "previewHost" ? "--preview-host" : "--public-origin";
    throw texts.wrongHost(flag, issue?.message);
  }

  #hostsPlan(): string {
    const { previewHost, publicOrigin } = this.#hosts();
    const parts = [
      previewHost && `a route *.${previewHost}/* and PREVIEW_HOST`,
      publicOrigin && `PUBLIC_ORIGIN ${publicOrigin}`,
    ];
    return texts.DEPLOYMENT.hosts(parts.filter(Boolean).join(", and "), CONFIG);
  }

  /** Writes the entries for these hosts, and keeps a copy of the earlier file. Changes nothing else in the file. */
  async #writeHosts(): Promise<string> {
    const { previewHost, publicOrigin } = this.#hosts();
    const file = join(this.#options.directory, CONFIG);
    const before = readFileSync(file, "utf8");
    const formattingOptions = { insertSpaces: true, tabSize: 2 };
    const setValue = (text: string, path: (string | number)[], value: unknown) =>
      applyEdits(text, modify(text, path, value, { formattingOptions }));
    let text = before;
    if (publicOrigin !== undefined) text = setValue(text, ["vars", "PUBLIC_ORIGIN"], publicOrigin);
    if (previewHost !== undefined) {
      const pattern = `*.${previewHost}/*`;
      const { routes = [] } = parse(text) as { routes?: (string | { pattern?: string })[] };
      const isThere = routes.some((route) => (typeof route === "string" ? route : route.pattern) === pattern);
      // wrangler finds the zone by the end of the host.
      if (!isThere) text = setValue(text, ["routes"], [...routes, pattern]);
      text = setValue(text, ["vars", "PREVIEW_HOST"], previewHost);
    }
    if (text === before) return "the file already has these entries";
    const copy = keepCopy(file);
    writeFileSync(file, text);
    return `written; a copy of the earlier file: ${copy}`;
  }

  async #logIn(): Promise<string> {
    const known = await this.#runWrangler(["whoami", "--json"]);
    if (known.status === 0 && !/"loggedIn":\s*false/.test(known.output)) return "logged in";
    if (!this.#options.isAttended) throw texts.notLoggedIn();
    const { status } = await this.#runWrangler(["login"], true);
    if (status === 0) return "logged in";
    throw texts.loginIncomplete();
  }

  #secretsPlan(): string {
    const secretNames = HIDDEN_VARIABLES.filter((name) => this.#options.env[name]?.trim());
    const made = texts.DEPLOYMENT.secrets;
    return secretNames.length === 0
      ? made
      : `set ${secretNames.join(", ")} to the values in the environment; ${made}`;
  }

  /** Returns the secrets of the environment. For a new server it also returns an owner's token and a separate key for links. */
  async #newSecrets(): Promise<Record<string, string>> {
    const { env, isAttended, print } = this.#options;
    const secrets: Record<string, string> = {};
    for (const name of HIDDEN_VARIABLES) {
      const value = env[name]?.trim();
      if (value) secrets[name] = value;
    }
    this.token = secrets.SERVER_AUTH_TOKEN;
    const existing = await this.#secretNames();
    // Another key would invalidate a server's existing links.
    if (existing.length === 0) secrets.LINK_KEY ??= newToken();
    if (this.token !== undefined || existing.includes("SERVER_AUTH_TOKEN")) return secrets;
    if (!isAttended) throw texts.noOwnerToken();
    this.token = newToken();
    print(`   ${texts.DEPLOYMENT.token(this.token)}`);
    return { ...secrets, SERVER_AUTH_TOKEN: this.token };
  }

  /** @throws {CommandError} if the secrets cannot be listed: an existing token must not be replaced by mistake */
  async #secretNames(): Promise<string[]> {
    const { status, output } = await this.#runWrangler(["secret", "list", "--format", "json"]);
    // Error 10007 means that the Worker does not exist yet.
    if (status !== 0 && /\b10007\b|does not exist/i.test(output)) return [];
    const list = /\[[^]*\]/.exec(output)?.[0];
    const parsed = z.array(z.looseObject({ name: z.string() })).safeParse(parse(list ?? ""));
    if (status === 0 && parsed.success) return parsed.data.map(({ name }) => name);
    throw texts.secretsUnknown(output);
  }

  async #build(): Promise<string> {
    const built = await this.#run("npm", ["run", "--silent", "predeploy"]);
    if (built.status !== 0) throw texts.predeployFailed(built.output);
    const outdir = join(this.#scratch, "worker");
    const words = ["deploy", "--dry-run", "--containers-rollout", "none", "--outdir", outdir];
    const { status, output } = await this.#runWrangler(words);
    if (status !== 0) throw new CommandError("failed", texts.workerNotBuilt(output));
    return /Total Upload: .*/.exec(output)?.[0] ?? "built";
  }

  async #deploy(secrets: Record<string, string>): Promise<string> {
    const words = ["deploy"];
    if (Object.keys(secrets).length > 0) {
      const file = join(this.#scratch, "secrets.json");
      writeFileSync(file, JSON.stringify(secrets), { mode: 0o600 });
      words.push("--secrets-file", file);
    }
    const { status, output } = await this.#runWrangler(words, true);
    if (status !== 0) throw texts.deployFailed();
    this.url = this.#options.publicOrigin ?? /^\s+(https?:\/\/[^\s*]+)\s*$/m.exec(output)?.[1];
    return this.url ?? "deployed";
  }

  #runWrangler(words: readonly string[], isShown = false) {
    const [program, ...before] = this.#options.wrangler;
    return this.#run(program, [...before, ...words], isShown);
  }

  /** Runs a program in the deployment's directory. @param isShown whether the user sees its output too */
  async #run(
    program: string,
    words: readonly string[],
    isShown = false,
  ): Promise<{ status: number; output: string }> {
    const { directory, isAttended } = this.#options;
    const quiet = { ...quietWrangler(this.#scratch), WRANGLER_LOG: "log" };
    const child = spawn(program, words, {
      cwd: directory,
      env: { ...process.env, ...quiet },
      stdio: [isShown && isAttended ? "inherit" : "ignore", "pipe", "pipe"],
    });
    this.#child = child;
    let output = "";
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding("utf8").on("data", (text: string) => {
        output = `${output}${text}`.slice(-100_000);
        if (isShown) process.stderr.write(text);
      });
    const status = await new Promise<number>((resolve, reject) => {
      child.once("close", (code) => resolve(code ?? 1));
      child.once("error", (error) => reject(texts.programNotStarted(program, error)));
    });
    return { status, output };
  }
}

/** Whether the directory can be deployed. The directory of the npm package cannot, because it contains no sources. */
export function isDeployable(directory: string): boolean {
  return existsSync(join(directory, CONFIG)) && existsSync(join(directory, "Dockerfile"));
}
