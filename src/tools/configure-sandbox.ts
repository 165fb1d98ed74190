import * as z from "zod";
import { REGIONS } from "../shared/principal.ts";
import { SETUP_STATES } from "../actors/set-up.ts";
import { SERVICE_STATES } from "../actors/service.ts";
import { allowHosts as allowHostsField, hostEntry } from "../shared/env-fields.ts";
import { INTERNET } from "../shared/network-policy.ts";
import { shownName } from "../shared/shown.ts";
import { decideNetwork } from "./decision.ts";
import { defineTool, sandboxField, joinSections, text, variablesField, forbidNUL } from "./define.ts";
import { RESERVED_VARIABLE, SETUP_WORDS } from "./texts.ts";

/**
 * Variables that this tool refuses. Bash reserves some. Every shell would run the file named by BASH_ENV or ENV first. IFS
 * changes how scripts are parsed. `__proto__` is special in JavaScript. The rest belong to this project.
 */
const RESERVED =
  /^(?:BASHOPTS|BASHPID|BASH_ENV|BASH_VERSINFO|DIRSTACK|ENV|EUID|FUNCNAME|GROUPS|IFS|OLDPWD|PPID|PWD|SHELLOPTS|SHLVL|UID|_|__proto__|SANDBOX_MCP_.*|sbx_.*)$/;

const MAX_SCRIPT = 100_000;

function scriptField() {
  const script = z
    .string()
    .max(MAX_SCRIPT, `is longer than ${MAX_SCRIPT} characters: let the script fetch the rest`);
  return forbidNUL(script).optional();
}

export const configureSandbox = defineTool({
  name: "configure_sandbox",
  title: "Configure a sandbox",
  description:
    "Shows and changes a sandbox's settings. Changes apply from its next call. Set no secrets: its code can read them.",
  input: z.strictObject({
    sandbox: sandboxField(),
    env: variablesField((name) => (RESERVED.test(name) ? RESERVED_VARIABLE : undefined)).describe(
      "For all commands, kernels and tasks; an empty value removes a variable.",
    ),
    setup: scriptField().describe(
      "Bash that runs once before the next call; new containers start from its result.",
    ),
    region: z.enum(REGIONS).optional().describe("Only at first use."),
    internet: z.enum(INTERNET).optional(),
    // Counted first: to parse 9,000 hosts takes more than a second, and a call has room for them.
    allow_hosts: allowHostsField(z.array(z.string()))
      .pipe(z.array(z.string().transform(hostEntry)))
      .optional()
      .describe("Hosts for allowlist: names, *.name, or packages (PyPI, npm, Debian, GitHub)."),
    idle_minutes: z.number().int().min(1).optional(),
    start: scriptField().describe("Bash that runs in every container, such as a server."),
  }),
  output: z.object({
    sandbox: z.string(),
    variables: z.array(z.string()),
    setup: z.enum(SETUP_STATES),
    region: z.string().optional(),
    internet: z.enum(INTERNET),
    allow_hosts: z.array(z.string()),
    idle_minutes: z.number(),
    start: z.enum(SERVICE_STATES),
    start_id: z.string().optional(),
  }),
  annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: true },
  scopes: ["sandbox:exec"],
  async handle(
    { sandbox, env, setup, region, internet, allow_hosts: allowHosts, idle_minutes: idleMinutes, start },
    context,
  ) {
    const isSet = internet !== undefined || allowHosts !== undefined;
    const requested = isSet ? { internet, allowHosts } : undefined;
    const decided = requested && (await decideNetwork(context, sandbox, requested));
    if (decided && "question" in decided) return { content: [], question: decided.question };
    const { change: network, isWithin } = decided ?? {};
    const {
      variables,
      setup: state,
      region: actorRegion,
      network: policy,
      idleMinutes: minutes,
      service,
    } = await context.sandbox(
      sandbox,
      (actor, owner) =>
        actor.configureSandbox(owner, { env, setup, network, isWithin, idleMinutes, start }, region),
      region,
    );
    const hosts = policy.internet === "allowlist" ? [...policy.allowHosts] : [];
    const summary = joinSections([
      ["sandbox", sandbox],
      ["variables", variables.map(shownName).join(", ") || "none"],
      ["set-up", SETUP_WORDS[state]],
      ["region", actorRegion],
      ["internet", policy.internet],
      ["allow_hosts", policy.internet === "allowlist" ? hosts.join(", ") || "none" : undefined],
      ["idle_minutes", String(minutes)],
      ["start", [service.state, service.run].filter(Boolean).join(", id ")],
    ]);
    const structured = {
      sandbox,
      variables,
      setup: state,
      region: actorRegion,
      internet: policy.internet,
      allow_hosts: hosts,
      idle_minutes: minutes,
      start: service.state,
      start_id: service.run,
    };
    return { content: [text(summary)], structured };
  },
});
