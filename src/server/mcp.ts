/** The MCP server of one request, with only the tools and resources that it needs. */
import { isInputRequiredResult, McpServer, type StandardSchemaWithJSON } from "@modelcontextprotocol/server";
import type { z } from "zod";
import registry from "../../server.json" with { type: "json" };
import { registerResources } from "../resources/index.ts";
import { type Tool, inputFor, isListed } from "../tools/define.ts";
import { tools } from "../tools/index.ts";
import type { NeededTools } from "./mcp-endpoint.ts";
import { ICON } from "./icon.ts";
import { instructions } from "./instructions.ts";
import { registerTasks } from "./tasks-extension.ts";
import type { EndpointQuery } from "../shared/endpoint-query.ts";
import { argumentsText, issueMessage } from "../shared/argument-issues.ts";
import { APPS_CAPABILITY, PANEL_URI, RUN_META } from "../shared/apps.ts";
import { DEFAULT_SANDBOX } from "../shared/names.ts";
import { isRecord } from "../shared/is-record.ts";
import { callerFields, log } from "../shared/log.ts";
import { mountLines } from "../shared/mounted-directories.ts";
import type { CallerContext } from "../shared/request-context.ts";
import type { ToolName } from "../shared/tool-sets.ts";

export function createMCPServer(
  caller: CallerContext,
  query: EndpointQuery,
  neededTools: NeededTools,
): McpServer {
  const { config, principal } = caller;
  // A request with only tool calls needs neither the list of tools nor the instructions.
  const listed = neededTools.hasOnlyCalls ? [] : tools.filter((tool) => isListed(tool, caller));
  const server = new McpServer(
    {
      name: "sandbox-mcp",
      title: "Sandbox",
      version: registry.version,
      // In MCP revision 2026-07-28, every response would contain the icons.
      icons: neededTools.hasOnlyCalls ? undefined : [ICON],
    },
    {
      instructions: neededTools.hasOnlyCalls
        ? undefined
        : instructions({
            has: (name) => listed.some((tool) => tool.name === name),
            sandbox: query.sandbox,
            savesWorkspaces: config.workspaces.isSaved,
            idleMinutes: config.idle.minutes,
            mounted: mountLines(config, principal),
          }),
      // The lists never announce changes: there is no session to announce them in.
      capabilities: { tools: { listChanged: false }, resources: { listChanged: false } },
    },
  );
  if (!neededTools.hasOnlyCalls) registerResources(server, caller, query.sandbox);
  if (caller.takesTasks !== undefined) registerTasks(server, { ...caller, isStructured: query.structured });
  server.server.registerCapabilities(APPS_CAPABILITY);
  // The panel's page calls the tools of `PANEL_NEEDS` as soon as it loads. So only callers who may use these tools get its link.
  const linksPanel =
    caller.mayShowApps && PANEL_NEEDS.every((need) => listed.some(({ name }) => name === need));
  const { maxWaitSeconds } = config;
  for (const tool of tools) {
    const { name, title, description, annotations, hasLongAnswers, showsPanel } = tool;
    // A tool that is called but not listed is registered too: its error explains what is missing.
    if (!listed.includes(tool) && !neededTools.called.includes(name)) continue;
    const input = inputFor(tool, { sandbox: query.sandbox, maxWaitSeconds });
    const inputSchema = schemaOf(input, (issues) => {
      logInvalid(tool, caller);
      return argumentsText(name, issues, Object.keys(input.shape));
    });
    // A call that becomes a task has no output for the SDK to check.
    const hasOutput = query.structured && !(neededTools.hasOnlyCalls && caller.takesTasks);
    const outputSchema = hasOutput ? tool.output && schemaOf(tool.output) : undefined;
    const _meta = { ...(hasLongAnswers && LONG_ANSWERS), ...(showsPanel && linksPanel && PANEL_LINK) };
    const hasMeta = Object.keys(_meta).length > 0;
    const listing = { title, description, inputSchema, outputSchema, annotations, ...(hasMeta && { _meta }) };
    server.registerTool(name, listing, async (args, context) => {
      const answer = await tool.call(
        args,
        { ...caller, isStructured: query.structured, isRaw: query.raw },
        context,
      );
      if (isInputRequiredResult(answer)) return answer;
      const { structuredContent, ...result } = answer;
      const run = showsPanel && caller.showsApps && isRecord(structuredContent) && structuredContent.id;
      if (typeof run === "string") result._meta = { [RUN_META]: run };
      // Without `?results=structured`, the answer has only text. With structured content too, clients would show their model
      // either only the structured content, as escaped JSON, or both, at twice the tokens.
      return query.structured ? { ...result, structuredContent } : result;
    });
  }
  return server;
}

/** Without this, Claude Code writes a long answer to a file and shows its model only the first 2 KB. */
const LONG_ANSWERS = { "anthropic/maxResultSizeChars": 100_000 };

const PANEL_LINK = { ui: { resourceUri: PANEL_URI } };

const PANEL_NEEDS: readonly ToolName[] = ["list_sandboxes", "list_runs", "get_result"];

/** Logs a call with arguments that do not match the schema. The tool is not called, so no other code logs the call. */
function logInvalid({ name: tool, scopes }: Tool, caller: CallerContext): void {
  const fields = { tool, scope: scopes.join(" "), duration_ms: 0, error_code: "invalid_argument" };
  log(caller.config, { event: "call", ...callerFields(caller), ...fields, outcome: "error" });
}

function schemaOf(
  schema: z.ZodObject,
  describeIssues: (issues: readonly z.core.$ZodIssue[]) => string = (issues) =>
    argumentsText("The result", issues, []),
): StandardSchemaWithJSON<Arguments, Arguments> {
  const { "~standard": standard } = schema;
  const validate: typeof standard.validate = (value) => {
    const { success, data, error } = schema.safeParse(value, { error: issueMessage });
    return success ? { value: data } : { issues: [{ message: describeIssues(error.issues) }] };
  };
  const jsonSchema = {
    input: (options: SchemaOptions) => listedSchema(schema, "input", options),
    output: (options: SchemaOptions) => listedSchema(schema, "output", options),
  };
  return { "~standard": { ...standard, validate, jsonSchema } };
}

const schemas = new WeakMap<z.ZodObject, Map<string, Record<string, unknown>>>();

function listedSchema(schema: z.ZodObject, side: "input" | "output", options: SchemaOptions) {
  const cached = schemas.get(schema) ?? new Map<string, Record<string, unknown>>();
  schemas.set(schema, cached);
  const key = `${side} ${options.target}`;
  let json = cached.get(key);
  if (!json) {
    const schemaText = JSON.stringify(schema["~standard"].jsonSchema[side](options));
    json = JSON.parse(schemaText, (keyword, value) =>
      isNoise(side, keyword, value) ? undefined : value,
    ) as Record<string, unknown>;
    cached.set(key, json);
  }
  return json;
}

/** Schemas do not list a higher maximum, because the error names it. The highest possible maximum of wait_seconds is 600. */
const HIGHEST_LISTED = 600;

/** Whether a keyword can be left out of a listed schema. Such keywords would be a tenth of the list, which costs tokens. */
function isNoise(side: "input" | "output", keyword: string, value: unknown): boolean {
  switch (keyword) {
    // The default dialect of MCP.
    case "$schema":
      return true;
    // Property names are always strings.
    case "propertyNames":
      return JSON.stringify(value) === '{"type":"string"}';
    // A model rarely reaches these bounds, and the error names them.
    case "minLength":
    case "maxLength":
    case "minItems":
    case "maxItems":
      return true;
    case "minimum":
      return Number(value) <= 1;
    case "maximum":
      return Number(value) > HIGHEST_LISTED;
    // The instructions name the default sandbox.
    case "default":
      return value === false || value === DEFAULT_SANDBOX;
    // The next version may add fields, which clients with the old schema must not refuse.
    case "additionalProperties":
      return side === "output" && value === false;
    default:
      return false;
  }
}

type SchemaOptions = Parameters<z.ZodObject["~standard"]["jsonSchema"]["input"]>[0];
type Arguments = Record<string, unknown>;
