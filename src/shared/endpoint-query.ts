/**
 * The query of the endpoint's URL. It applies to all calls to this URL: `?sandbox=name` sets the default sandbox,
 * `?results=structured` adds data to the text, `?results=raw` also keeps terminals' control sequences, `?tools=` selects tools,
 * and `?images=off` replaces images with descriptions.
 */
import * as z from "zod";
import { list } from "./env-fields.ts";
import { DEFAULT_SANDBOX, SANDBOX_NAME, sandboxNameRule } from "./names.ts";
import { type ToolName, describeWrongChoice } from "./tool-sets.ts";

export interface EndpointQuery {
  sandbox: string;
  /** Whether results have `structuredContent`, and the list of tools has output schemas. */
  structured: boolean;
  tools?: readonly string[] | undefined;
  /** Whether a terminal's log keeps its control sequences, for clients that are terminals. */
  raw?: boolean;
  images: boolean;
}

/** How many problems the text about an invalid query lists. */
const MAX_PROBLEMS = 5;

/** The longest query, in characters. */
const MAX_QUERY = 2048;

const RESULTS = ["text", "structured", "raw"] as const;

const parameters = z.object({
  sandbox: z
    .string()
    .regex(SANDBOX_NAME, { error: ({ input }) => sandboxNameRule(input) })
    .default(DEFAULT_SANDBOX),
  results: z.enum(RESULTS, "must be text, structured or raw").default("text"),
  tools: list(z.string()).optional(),
  images: z.enum(["on", "off"], "must be on or off").default("on"),
});

/** The parsed query, or a sentence about its problem. @param offered the tools that `?tools=` may choose */
export function endpointQueryOf(
  url: URL,
  offered: ReadonlySet<ToolName>,
): EndpointQuery | { problem: string } {
  if (url.search.length > MAX_QUERY) return invalidQuery([`it has more than ${MAX_QUERY} characters`]);
  const { searchParams } = url;
  const names = Object.keys(parameters.shape);
  // A repeated parameter becomes one list, separated by commas. Only `tools` accepts a list.
  const values = names.map((name) => [
    name,
    searchParams.has(name) ? searchParams.getAll(name).join(",") : undefined,
  ]);
  const { success, data, error } = parameters.safeParse(Object.fromEntries(values));
  const problems = error?.issues.map(({ path, message }) => `${path.join(".")} ${message}`) ?? [];
  const badTools = data?.tools && describeWrongChoice(data.tools, offered);
  if (badTools) problems.push(`?tools= ${badTools}`);
  // Gateways add parameters, which are ignored. A name close to one of the server's parameters is probably a typing error, so
  // it is reported.
  for (const name of new Set(searchParams.keys())) {
    if (problems.length >= MAX_PROBLEMS) break;
    const intended = names.includes(name) ? undefined : names.find((known) => isClose(name, known));
    if (intended) problems.push(`it has no parameter ${name.slice(0, 40)}: use ${intended}`);
  }
  if (success && problems.length === 0)
    return {
      sandbox: data.sandbox,
      structured: data.results !== "text",
      raw: data.results === "raw",
      tools: data.tools,
      images: data.images === "on",
    };
  return invalidQuery(problems);
}

function invalidQuery(problems: readonly string[]): { problem: string } {
  return { problem: `The query of the endpoint's address is not valid: ${problems.join("; ")}.` };
}

export function queryOf({ sandbox, structured, raw, tools, images }: EndpointQuery): string {
  const query = new URLSearchParams();
  if (sandbox !== DEFAULT_SANDBOX) query.set("sandbox", sandbox);
  if (structured) query.set("results", raw ? "raw" : "structured");
  if (!images) query.set("images", "off");
  if (tools) query.set("tools", tools.join(","));
  return query.size > 0 ? `?${String(query).replaceAll("%2C", ",")}` : "";
}

function isClose(name: string, known: string): boolean {
  const lower = name.toLowerCase();
  return lower.startsWith(known) || isWithin(2, lower, known);
}

/** Whether at most `edits` insertions, deletions and replacements turn one text into the other. */
function isWithin(edits: number, one: string, other: string): boolean {
  if (one === other) return true;
  if (edits === 0) return false;
  let at = 0;
  while (one[at] === other[at]) at++;
  const [left, right] = [one.slice(at), other.slice(at)];
  return (
    isWithin(edits - 1, left.slice(1), right) ||
    isWithin(edits - 1, left, right.slice(1)) ||
    isWithin(edits - 1, left.slice(1), right.slice(1))
  );
}
