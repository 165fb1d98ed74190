/** The types of the client library's calls, from the schemas of the tools: client/tool-types.ts. */
import { z } from "zod";
import { ERROR_META } from "../src/shared/apps.ts";
import { variables } from "../src/shared/variables.ts";
import { MAX_RUN_SECONDS } from "../src/shared/run-seconds.ts";
import { WAIT_SECONDS } from "../src/shared/wait.ts";

/** The part of a tool of src/tools that gives the types. */
interface Tool {
  name: string;
  input: z.ZodObject;
  output?: z.ZodObject;
  data?: z.ZodObject;
}

type Schema = z.core.JSONSchema.JSONSchema;

export function toolTypes(tools: readonly Tool[]): string {
  const inputs = tools.map(({ name, input }) => `  ${name}: ${linesOf(schemaOf(input, "input"))};`);
  // A tool with several kinds of answers has no schema.
  const outputs = tools.map(({ name, output, data = output }) =>
    data ? `  ${name}: ${linesOf(schemaOf(data, "output"))};` : `  ${name}: Record<string, unknown>;`,
  );
  return `/** Inputs and data of the tools. Made by \`npm run docs\` from src/tools. */
export interface ToolInputs {
${inputs.join("\n")}
}

export interface ToolOutputs {
${outputs.join("\n")}
}

export type ToolName = keyof ToolInputs;

/** How many seconds a call waits for a run by default. A server may allow less, and then its default is lower too. */
export const WAIT_SECONDS = ${WAIT_SECONDS};

/** How many seconds a call may wait for a run, unless the server's operator changes MAX_WAIT_SECONDS. */
export const MAX_WAIT_SECONDS = ${variables.MAX_WAIT_SECONDS.default};

/** The longest time of a run, in seconds. */
export const MAX_RUN_SECONDS = ${MAX_RUN_SECONDS};

/** The key of the code, message and hint in the \`_meta\` of a tool's error. */
export const ERROR_META = ${JSON.stringify(ERROR_META)};
`;
}

function schemaOf(schema: z.ZodType, io: "input" | "output"): Schema {
  return z.toJSONSchema(schema, { io, unrepresentable: "any" }) as Schema;
}

function typeOf(schema: boolean | Schema | undefined): string {
  if (typeof schema !== "object") return "unknown";
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" | ");
  switch (schema.type) {
    case "string":
    case "boolean":
      return schema.type;
    case "number":
    case "integer":
      return "number";
    case "array": {
      const item = typeOf(schema.items as Schema);
      return item.includes(" | ") ? `(${item})[]` : `${item}[]`;
    }
    case "object":
      return objectType(schema);
    default:
      return "unknown";
  }
}

function objectType({ properties, required = [], additionalProperties }: Schema): string {
  if (!properties) return `Record<string, ${typeOf(additionalProperties as Schema)}>`;
  const fields = Object.entries(properties).map(
    ([name, field]) => `${name}${required.includes(name) ? "" : "?"}: ${typeOf(field as Schema)}`,
  );
  return `{ ${fields.join("; ")} }`;
}

/** The longest object type on one line, in characters: the formatter's limit without the indent and the name. */
const MAX_LINE = 85;

/** The type of an object: a short type without comments is one line, others have a line for each field. */
function linesOf(schema: Schema): string {
  const { properties = {}, required = [] } = schema;
  const isPlain = Object.values(properties).every((field) => !(field as Schema).description);
  const line = objectType(schema);
  if (isPlain && Object.keys(properties).length > 0 && line.length <= MAX_LINE) return line;
  const lines = Object.entries(properties).map(([name, field]) => {
    const { description } = field as Schema;
    const comment = description ? `    /** ${description.replaceAll("*/", "* /")} */\n` : "";
    return `${comment}    ${name}${required.includes(name) ? "" : "?"}: ${typeOf(field as Schema)};`;
  });
  return lines.length > 0 ? `{\n${lines.join("\n")}\n  }` : "Record<string, never>";
}
