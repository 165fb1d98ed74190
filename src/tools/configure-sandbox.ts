import { z } from "zod";
import { REGIONS } from "../shared/principal.ts";
import { callSandbox } from "../actors/sandbox-client.ts";
import { defineTool, sandboxField, sections, text, variablesField } from "./define.ts";

/**
 * Names that a variable of a sandbox cannot have: bash keeps some to itself, every shell that starts would run the file in
 * BASH_ENV or ENV before what it is there for, IFS changes how scripts are read, and the rest are our own.
 */
const RESERVED =
  /^(?:BASHOPTS|BASHPID|BASH_ENV|BASH_VERSINFO|DIRSTACK|ENV|EUID|FUNCNAME|GROUPS|IFS|OLDPWD|PPID|PWD|SHELLOPTS|SHLVL|UID|_|__proto__|SANDBOX_MCP_.*|sbx_.*)$/;

function problemWith(name: string): string | undefined {
  return RESERVED.test(name) ? "is a name that the shell or this server uses itself" : undefined;
}

export const configureSandbox = defineTool({
  name: "configure_sandbox",
  title: "Configure a sandbox",
  description:
    "Sets what a sandbox is like from its next call on, and shows it. Nothing here is secret: code in the sandbox reads it.",
  input: z.strictObject({
    sandbox: sandboxField(),
    env: variablesField(
      "Variables of all commands, kernels and tasks, beside those set before; an empty value removes one.",
      problemWith,
    ),
    region: z.enum(REGIONS).optional().describe("Where it is made; only with its first use."),
  }),
  output: z.object({ sandbox: z.string(), variables: z.array(z.string()), region: z.string().optional() }),
  annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: true },
  scopes: ["sandbox:exec"],
  async handle({ sandbox, env, region }, context) {
    const { id: principalID, scopes, region: own } = context.principal;
    const owner = { principalID, sandbox, region: region ?? own };
    const mayUseModel = scopes.includes("tasks:run");
    const { value, notice } = await callSandbox(context.env, owner, (actor, who) =>
      actor.configureSandbox(who, { env }, region, mayUseModel),
    );
    const { variables, region: made } = value;
    const said = sections([
      ["notice", notice],
      ["sandbox", sandbox],
      ["variables", variables.join(", ") || "none"],
      ["region", made],
    ]);
    return { content: [text(said)], structured: { sandbox, variables, region: made } };
  },
});
