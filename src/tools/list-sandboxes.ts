import { z } from "zod";
import { accountOf } from "../actors/account-of.ts";
import { retryOnce } from "../actors/actor-errors.ts";
import { type ComponentNames, offeredComponents } from "../tasks/components.ts";
import { mountLines } from "../shared/mounted-directories.ts";
import type { SandboxRecord } from "../actors/account.ts";
import { actorName } from "../shared/names.ts";
import { type NetworkLimits, networkLimits, policyOf } from "../shared/network-limits.ts";
import { secretsFor } from "../shared/secrets.ts";
import { previewURL } from "../shared/preview-url.ts";
import { sandboxListing } from "../shared/sandbox-listing.ts";
import { shownName } from "../shared/shown.ts";
import { type ToolContext, defineTool, text } from "./define.ts";
import { canRunTasks } from "../shared/config.ts";

export const listSandboxes = defineTool({
  name: "list_sandboxes",
  title: "List sandboxes",
  description:
    "Lists your sandboxes (last used first), checkpoints, secrets and limits. A stopped one starts with its files at its next call.",
  input: z.strictObject({}),
  output: sandboxListing,
  showsPanel: true,
  annotations: { readOnlyHint: true },
  scopes: ["sandbox:read"],
  async handle(_args, context) {
    const { env, config, principal } = context;
    const view = await retryOnce(() => accountOf(env, principal.id).view());
    const { limits, runSecondsToday, modelTokensToday, storedBytes, workspaceBytes } = view;
    const network = networkLimits(config, principal.id);
    const sandboxes = await Promise.all(view.sandboxes.map((sandbox) => shown(sandbox, network, context)));
    const running = sandboxes.filter(({ state }) => state === "running").length;
    const checkpoints = view.checkpoints.map(({ id, sandbox, label, savedAt, bytes, expiresAt }) => ({
      id,
      sandbox,
      label,
      saved_at: new Date(savedAt).toISOString(),
      bytes,
      expires_at: new Date(expiresAt).toISOString(),
    }));
    const lines = sandboxes.flatMap((sandbox) => {
      const { name, state, size_bytes, created_at, last_used_at, saved_at, saved_bytes, variables } = sandbox;
      const size = size_bytes === undefined ? "" : `, ${size_bytes} bytes`;
      const isFree = sandbox.internet === undefined || sandbox.internet === "full";
      const reaches = isFree ? "" : `, internet ${sandbox.internet}`;
      const saved = saved_at === undefined ? "" : `, saved ${saved_at} (${saved_bytes} bytes)`;
      return [
        `${name}: ${state}${size}, created ${created_at}, last used ${last_used_at}${saved}${reaches}`,
        ...(variables.length > 0 ? [`  variables: ${variables.map(shownName).join(", ")}`] : []),
        ...sandbox.previews.map(
          ({ port, url, expires_at }) =>
            `  port ${port} is exposed until ${expires_at}${url ? `: ${url}` : ""}`,
        ),
      ];
    });
    lines.unshift(...mountLines(config, principal));
    const secrets = secretsFor(config.secrets, principal.id).map(({ name, hosts, variable }) => ({
      name,
      hosts: [...hosts],
      variable,
    }));
    for (const { name, hosts, variable } of secrets)
      lines.push(
        `secret ${name}: added to requests to ${hosts.join(", ")}${variable ? `; ${variable} has a placeholder for it` : ""}`,
      );
    const components = await componentsOf(context);
    for (const [kind, names] of Object.entries(components ?? {}))
      if (names.length > 0) lines.push(`${kind} for execute_task: ${names.map(shownName).join(", ")}`);
    if (components === undefined)
      lines.push("What there is for agents and commands of execute_task cannot be listed now.");
    for (const { id, sandbox, label, saved_at, bytes, expires_at } of checkpoints)
      lines.push(
        `checkpoint ${id} of ${sandbox}${label ? ` (${shownName(label)})` : ""}: ${saved_at}, ${bytes} bytes, kept until ${expires_at}`,
      );
    if (sandboxes.length === 0)
      lines.push("You have no sandbox yet: the first call of run_code or run_command makes one.");
    lines.push(
      `Limits: ${sandboxes.length} of ${limits.sandboxes} sandboxes, ${running} of ${limits.runningSandboxes} running, ${limits.concurrentRuns} runs at once, ${runSecondsToday} of ${limits.runSecondsPerDay} seconds of running and ${modelTokensToday} of ${limits.modelTokensPerDay} tokens of the model today, ${megabytes(storedBytes)} of ${megabytes(limits.storageBytes)} MB of results kept (beyond that the oldest go), ${megabytes(workspaceBytes)} of ${megabytes(limits.workspaceBytes)} MB of saved workspaces, ${checkpoints.length} of ${limits.checkpoints} checkpoints.`,
    );
    const structured = {
      sandboxes,
      secrets,
      task_agents: [...(components?.agents ?? [])],
      task_commands: [...(components?.commands ?? [])],
      checkpoints,
      max_sandboxes: limits.sandboxes,
      max_running_sandboxes: limits.runningSandboxes,
      max_concurrent_runs: limits.concurrentRuns,
      max_run_seconds_per_day: limits.runSecondsPerDay,
      run_seconds_today: runSecondsToday,
      max_model_tokens_per_day: limits.modelTokensPerDay,
      model_tokens_today: modelTokensToday,
      max_storage_bytes: limits.storageBytes,
      storage_bytes: storedBytes,
      max_checkpoints: limits.checkpoints,
      max_workspace_bytes: limits.workspaceBytes,
      workspace_bytes: workspaceBytes,
    };
    return { content: [text(lines.join("\n"))], structured };
  },
});

/** In units of 1024 * 1024 bytes, as in the variables that set the limits. */
function megabytes(bytes: number): string {
  return String(Math.round((bytes / 1024 / 1024) * 10) / 10);
}

/** What the operator offers to the caller's tasks; undefined where that cannot be found out. */
async function componentsOf({ env, config, principal }: ToolContext): Promise<ComponentNames | undefined> {
  if (!principal.scopes.includes("tasks:run") || !canRunTasks(config)) return { agents: [], commands: [] };
  return await offeredComponents(env, config).catch(() => undefined);
}

/** A sandbox as it is listed. A preview's URL lets in who has it: it is for who may run something there themselves. */
async function shown(
  { previews, variables, network, ...sandbox }: SandboxRecord,
  limits: NetworkLimits,
  context: ToolContext,
) {
  const { principal } = context;
  const policy = network && policyOf(network, limits);
  const actor = await actorName(sandbox.name, principal.id);
  const mayUse = principal.scopes.includes("sandbox:exec");
  return {
    ...sandbox,
    variables: [...variables],
    internet: policy?.internet,
    allow_hosts: policy && (policy.internet === "allowlist" ? [...policy.allowHosts] : []),
    previews: previews.map(({ port, token, expiresAt }) => ({
      port,
      url: mayUse ? previewURL({ port, token, actor }, context) : undefined,
      expires_at: new Date(expiresAt).toISOString(),
    })),
  };
}
