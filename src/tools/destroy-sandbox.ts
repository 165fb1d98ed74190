import { z } from "zod";
import { SANDBOX_NAME, SANDBOX_NAME_RULE } from "../shared/names.ts";
import { defineTool, text } from "./define.ts";

export const destroySandbox = defineTool({
  name: "destroy_sandbox",
  title: "Destroy a sandbox",
  description:
    "Ends a sandbox for good: every process is killed, every file and kernel is gone. Copy what you need out with read_file first. The name can be used again and starts empty.",
  input: z.strictObject({
    sandbox: z
      .string()
      .regex(SANDBOX_NAME, SANDBOX_NAME_RULE)
      .describe("Which of your sandboxes; list_sandboxes names them."),
  }),
  output: z.object({ sandbox: z.string(), existed: z.boolean() }),
  hints: { readOnly: false, destructive: true, idempotent: true },
  scopes: ["sandbox:write"],
  async handle({ sandbox }, context) {
    const { value: existed } = await context.sandbox(sandbox, (actor, owner) => actor.destroySandbox(owner));
    const said = existed
      ? `Sandbox ${sandbox} is destroyed.`
      : `There was no sandbox ${sandbox}; nothing was destroyed.`;
    return { content: [text(said)], structured: { sandbox, existed } };
  },
});
