import * as z from "zod";
import { accountOf } from "../actors/account-of.ts";
import { retryOnce } from "../actors/sandbox-client.ts";
import { type ComponentNames, listComponents } from "../tasks/components.ts";
import { mountLines } from "../shared/mounted-directories.ts";
import type { SandboxRecord } from "../actors/sandbox-record.ts";
import { actorName } from "../shared/names.ts";
import { type NetworkLimits, networkLimits, policyOf } from "../shared/network-limits.ts";
import { secretsFor } from "../shared/secrets.ts";
import { previewURL } from "../shared/preview-url.ts";
import { sandboxListing } from "../shared/sandbox-listing.ts";
import { shownName } from "../shared/shown.ts";
import { type ToolContext, defineTool, text } from "./define.ts";
import * as texts from "./texts.ts";
import { canRunTasks } from "../shared/config.ts";

export const listSandboxes = defineTool({
  name: "list_sandboxes",
  title: "List sandboxes",
  description:
    "Lists your sandboxes (last used first), checkpoints, secrets and limits. A stopped sandbox restarts when used.",
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
    const sandboxes = await Promise.all(
      view.sandboxes.map((sandbox) => listSandbox(sandbox, network, context)),
    );
    const running = sandboxes.filter(({ state }) => state === "running").length;
    const checkpoints = view.checkpoints.map(({ id, sandbox, label, savedAt, bytes, expiresAt }) => ({
      id,
      sandbox,
      label,
      saved_at: new Date(savedAt).toISOString(),
      bytes,
      expires_at: new Date(expiresAt).toISOString(),
    }));
    const lines = sandboxes.flatMap((sandbox) => [
      texts.sandboxText(sandbox),
      ...(sandbox.variables?.length ? [texts.variablesText(sandbox.variables)] : []),
      ...sandbox.previews.map(texts.previewText),
    ]);
    if (view.unlistedSettings > 0) lines.push(texts.settingsUnlisted(view.unlistedSettings));
    lines.unshift(...mountLines(config, principal));
    const secrets = secretsFor(config.secrets, principal.id).map(({ name, hosts, variable }) => ({
      name,
      hosts: [...hosts],
      variable,
    }));
    for (const { name, hosts, variable } of secrets) lines.push(texts.secretText(name, hosts, variable));
    const components = await componentsOf(context);
    for (const [kind, names] of Object.entries(components ?? {}))
      if (names.length > 0) lines.push(`${kind} for execute_task: ${names.map(shownName).join(", ")}`);
    if (components === undefined) lines.push(texts.COMPONENTS_UNKNOWN);
    for (const checkpoint of view.checkpoints) lines.push(texts.listedCheckpointText(checkpoint));
    if (sandboxes.length === 0) lines.push(texts.NO_SANDBOXES);
    const used = { sandboxes: sandboxes.length, running, checkpoints: checkpoints.length };
    lines.push(texts.limitsText(view, used));
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
      results_kept_days: config.resultTTLDays,
      max_checkpoints: limits.checkpoints,
      max_workspace_bytes: limits.workspaceBytes,
      workspace_bytes: workspaceBytes,
    };
    return { content: [text(lines.join("\n"))], structured };
  },
});

async function componentsOf({ env, config, principal }: ToolContext): Promise<ComponentNames | undefined> {
  if (!principal.scopes.includes("tasks:run") || !canRunTasks(config)) return { agents: [], commands: [] };
  return await listComponents(env, config).catch(() => undefined);
}

/** Preview URLs give access, so only callers who may run code see them. */
async function listSandbox(
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
    variables: variables && [...variables],
    internet: policy?.internet,
    allow_hosts: policy && (policy.internet === "allowlist" ? [...policy.allowHosts] : []),
    previews: previews.map(({ port, token, expiresAt }) => ({
      port,
      url: mayUse ? previewURL({ port, token, actor }, context) : undefined,
      expires_at: new Date(expiresAt).toISOString(),
    })),
  };
}
