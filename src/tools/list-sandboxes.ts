import { z } from "zod";
import { accountOf } from "../sandbox/handle.ts";
import { defineTool, text } from "./define.ts";

export const listSandboxes = defineTool({
  name: "list_sandboxes",
  title: "List sandboxes",
  description:
    "Lists your sandboxes, the most recently used first. A stopped one starts again with the next call, without its files: they end with its container.",
  input: z.strictObject({}),
  hints: { readOnly: true, destructive: false, idempotent: true },
  scopes: ["sandbox:read"],
  async handle(_args, { env, principal }) {
    const sandboxes = await accountOf(env, principal.id).listSandboxes();
    const lines = sandboxes.map(
      (one) => `${one.name}: ${one.state}, created ${one.created_at}, last used ${one.last_used_at}`,
    );
    const said =
      lines.length > 0
        ? lines.join("\n")
        : "You have no sandbox yet: the first call of run_code or run_command makes one.";
    return { content: [text(said)], structured: { sandboxes } };
  },
});
