import { z } from "zod";
import { defineTool, sandboxName, text } from "./define.ts";

export const destroySandbox = defineTool({
  name: "destroy_sandbox",
  title: "Destroy a sandbox",
  description:
    "Ends a sandbox for good, with every process, file and kernel and what was saved of it. Copy what you need out with read_file first. The name starts empty when it is used again.",
  input: z.strictObject({
    sandbox: sandboxName(),
    checkpoints: z.boolean().default(false).describe("Delete its checkpoints too."),
  }),
  output: z.object({ sandbox: z.string(), existed: z.boolean(), checkpoints_left: z.number() }),
  annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: true },
  scopes: ["sandbox:write"],
  async handle({ sandbox, checkpoints: endsAll }, context) {
    const { value } = await context.sandbox(sandbox, (actor, owner) =>
      actor.destroySandbox(owner, endsAll ? "checkpoints" : "workspace"),
    );
    const { wasKnown, wasSaved, checkpoints } = value;
    const existed = wasKnown || wasSaved;
    const said = [
      existed
        ? `Sandbox ${sandbox} is destroyed, with what was saved of it.`
        : `There was no sandbox ${sandbox}; nothing was destroyed.`,
    ];
    if (checkpoints > 0)
      said.push(
        endsAll
          ? `Its checkpoints are deleted: ${checkpoints}.`
          : `Its checkpoints stay: ${checkpoints}. With checkpoints true they are deleted as well.`,
      );
    const checkpoints_left = endsAll ? 0 : checkpoints;
    return { content: [text(said.join(" "))], structured: { sandbox, existed, checkpoints_left } };
  },
});
