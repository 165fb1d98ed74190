/**
 * The query of the endpoint's URL, which applies to every call there: `?sandbox=name` is the sandbox of calls that name
 * none, `?results=structured` gives programs data beside the text, `raw` what terminals print as it is, `?tools=` names the
 * tools that the client needs, and `?images=off` leaves images out.
 */
import { z } from "zod";
import { list } from "./env-fields.ts";
import { DEFAULT_SANDBOX, SANDBOX_NAME, SANDBOX_NAME_RULE } from "./names.ts";
import { type ToolName, describeWrongChoice } from "./tool-sets.ts";

export interface EndpointQuery {
  /** The sandbox of calls that name none. */
  sandbox: string;
  /** Whether results carry `structuredContent`, and the list of tools its schemas. */
  structured: boolean;
  /** Names and sets of the tools that the client needs; undefined for all. */
  tools?: readonly string[] | undefined;
  /** Whether the log of a terminal keeps its control sequences, for a program that is a terminal itself. */
  raw?: boolean;
  /** Whether results carry images, and not only the text beside them. */
  images: boolean;
}

const RESULTS = ["text", "structured", "raw"] as const;

const parameters = z.object({
  sandbox: z.string().regex(SANDBOX_NAME, SANDBOX_NAME_RULE).default(DEFAULT_SANDBOX),
  results: z.enum(RESULTS, "must be text, structured or raw").default("text"),
  tools: list(z.string()).optional(),
  images: z.enum(["on", "off"], "must be on or off").default("on"),
});

/** The query as parsed, or a sentence about what is wrong with it. @param offered what `?tools=` may choose from */
export function endpointQueryOf(
  { searchParams }: URL,
  offered: ReadonlySet<ToolName>,
): EndpointQuery | { problem: string } {
  const names = Object.keys(parameters.shape);
  // What is given twice is one list, which only `tools` takes.
  const given = names.map((name) => [
    name,
    searchParams.has(name) ? searchParams.getAll(name).join(",") : undefined,
  ]);
  const { success, data, error } = parameters.safeParse(Object.fromEntries(given));
  const problems = error?.issues.map(({ path, message }) => `${path.join(".")} ${message}`) ?? [];
  const wrong = data?.tools && describeWrongChoice(data.tools, offered);
  if (wrong) problems.push(`tools ${wrong}`);
  // Gateways add parameters, which are ignored. One close to ours is a typing error, which should not go unnoticed.
  for (const name of searchParams.keys()) {
    const meant = names.includes(name) ? undefined : names.find((known) => isClose(name, known));
    if (meant) problems.push(`it has no parameter ${name.slice(0, 40)}: say ${meant}`);
  }
  if (success && problems.length === 0)
    return {
      sandbox: data.sandbox,
      structured: data.results !== "text",
      raw: data.results === "raw",
      tools: data.tools,
      images: data.images === "on",
    };
  return { problem: `The query of the endpoint's address is not valid: ${problems.join("; ")}.` };
}

/** The query for these settings, without those that are the default. */
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

/** Whether so many insertions, deletions and replacements of a character turn one text into the other. */
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
