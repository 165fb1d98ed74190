/** The MCP server of one request: every tool, in the caller's name. */
import { McpServer, type StandardSchemaWithJSON } from "@modelcontextprotocol/server";
import type { z } from "zod";
import manifest from "../../package.json" with { type: "json" };
import type { Call, Tool } from "../tools/define.ts";
import { tools } from "../tools/index.ts";
import { log } from "./log.ts";

/** What a client puts in front of its model. The essentials come first: some clients cut at 512 characters. */
const INSTRUCTIONS = `Real Linux sandboxes for code, shell commands, files and whole tasks. run_code keeps a live Python, JavaScript or TypeScript kernel; run_command a bash session; write_file, read_file and list_files move files; execute_task hands a task to a coding agent. All of them share /workspace of the sandbox named by "sandbox" ("default" unless given), made on first use and yours alone.

- Variables, the working directory and files stay between calls. They are gone when a sandbox is destroyed, restarted, or stopped after 10 minutes without use; the next result says so.
- Exceptions and exit codes are results, not errors: read them and go on. An error names the next call to make.
- Start servers in the background (cmd > log 2>&1 &). Give independent work its own session, context or sandbox: it runs at the same time.`;

/** @param names the only tools that the request needs, where that is known: registering one takes its time */
export function createMCPServer(call: Call, names?: readonly string[]): McpServer {
  const server = new McpServer(
    { name: "sandbox-mcp", title: "Sandbox", version: manifest.version },
    { instructions: INSTRUCTIONS, capabilities: { tools: {} } },
  );
  for (const tool of tools) {
    const { name, title, description, annotations } = tool;
    if (names && !names.includes(name)) continue;
    const inputSchema = schemaOf(tool, () => logInvalid(tool, call));
    server.registerTool(name, { title, description, inputSchema, annotations }, (args, context) =>
      tool.call(args, call, context),
    );
  }
  return server;
}

/** A call that does not come to its tool, whose schema refuses the arguments, is on record all the same. */
function logInvalid({ name: tool, scopes }: Tool, { config, requestID, principal }: Call): void {
  const who = { principal: principal.id, door: principal.via, client: principal.client };
  const what = { tool, scope: scopes.join(" "), duration_ms: 0, error_code: "invalid_argument" };
  log(config, { event: "call", request_id: requestID, ...who, ...what, outcome: "error" });
}

/** The tool's schema, which says when it refuses what it is given. */
function schemaOf(tool: Tool, refused: () => void): StandardSchemaWithJSON<Arguments, Arguments> {
  const { "~standard": standard } = tool.input;
  const validate: typeof standard.validate = async (value) => {
    const checked = await standard.validate(value);
    if (checked.issues) refused();
    return checked;
  };
  const input: typeof standard.jsonSchema.input = (options) => listedSchema(tool, options);
  return { "~standard": { ...standard, validate, jsonSchema: { ...standard.jsonSchema, input } } };
}

const listed = new Map<string, Record<string, unknown>>();

/** As listed: without the line that names its dialect, which is the protocol's own and a twentieth of the list. */
function listedSchema({ name, input }: Tool, options: SchemaOptions): Record<string, unknown> {
  const key = `${name} ${options.target}`;
  let schema = listed.get(key);
  if (!schema) {
    const { $schema: _, ...rest } = input["~standard"].jsonSchema.input(options);
    schema = rest;
    listed.set(key, schema);
  }
  return schema;
}

type SchemaOptions = Parameters<z.ZodObject["~standard"]["jsonSchema"]["input"]>[0];
type Arguments = Record<string, unknown>;
