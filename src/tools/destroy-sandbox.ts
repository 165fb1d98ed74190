import { z } from "zod";
import { SANDBOX_NAME } from "../sandbox/naming.ts";
import { defineTool, text } from "./define.ts";

export const destroySandbox = defineTool({
  name: "destroy_sandbox",
  title: "Destroy a sandbox",
  description:
    "Ends a sandbox for good: every process is killed, every file and kernel is gone. Copy what you need out with read_file first. The name can be used again and starts empty.",
  input: z.strictObject({
    sandbox: z
      .string()
      .regex(SANDBOX_NAME, "must be 1 to 20 of a-z, 0-9 and -, without a dash at either end")
      .describe("Which of your sandboxes; list_sandboxes names them."),
  }),
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
