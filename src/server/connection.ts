/**
 * What the endpoint's address asks for, on behalf of every call that comes in by it: `?sandbox=NAME` is the sandbox of
 * calls that name none, and `?results=structured` gives programs data beside the text.
 */
import { z } from "zod";
import { DEFAULT_SANDBOX, SANDBOX_NAME, SANDBOX_NAME_RULE } from "../sandbox/naming.ts";
import { type Refusal, rpcError } from "./answers.ts";

export interface Connection {
  /** The sandbox of calls that name none. */
  sandbox: string;
  /** Whether results carry `structuredContent`, and the list of tools its schemas. */
  structured: boolean;
}

const parameters = z.object({
  sandbox: z.string().regex(SANDBOX_NAME, SANDBOX_NAME_RULE).default(DEFAULT_SANDBOX),
  results: z.enum(["text", "structured"], "must be text or structured").default("text"),
});

/** Reads the endpoint's query; what is empty counts as left out, and other parameters are not ours. */
export function connectionOf({ searchParams }: URL): Connection | Refusal {
  const { success, data, error } = parameters.safeParse({
    sandbox: searchParams.get("sandbox") || undefined,
    results: searchParams.get("results") || undefined,
  });
  if (success) return { sandbox: data.sandbox, structured: data.results === "structured" };
  const problems = error.issues.map(({ path, message }) => `${path.join(".")} ${message}`).join("; ");
  const message = `The query of the endpoint's address is not valid: ${problems}.`;
  return { reason: "bad_query", response: rpcError(400, -32602, message) };
}
