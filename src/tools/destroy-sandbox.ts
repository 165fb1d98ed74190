import { z } from "zod";
import { accountOf } from "../actors/account-of.ts";
import { ToolError, unwrap } from "../shared/errors.ts";
import { type ToolContext, defineTool, sandboxName, text } from "./define.ts";

export const destroySandbox = defineTool({
  name: "destroy_sandbox",
  title: "Destroy a sandbox",
  description:
    "Ends a sandbox for good: processes, files and what was saved of it. Read what you need first. Its name then starts empty.",
  input: z.strictObject({
    sandbox: sandboxName(),
    checkpoints: z.boolean().default(false).describe("Also delete its checkpoints."),
    checkpoint: z.string().max(64).optional().describe("Delete only this checkpoint of it."),
  }),
  output: z.object({ sandbox: z.string(), existed: z.boolean(), checkpoints_left: z.number() }),
  annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: true },
  scopes: ["sandbox:write"],
  async handle({ sandbox, checkpoints: endsAll, checkpoint }, context) {
    if (checkpoint !== undefined) {
      if (endsAll) throw oneOrAll();
      return await deleteCheckpoint(context, sandbox, checkpoint);
    }
    const { value } = await context.sandbox(sandbox, (actor, owner) =>
      actor.destroySandbox(owner, endsAll ? "checkpoints" : "workspace"),
    );
    const { wasKnown, wasSaved, checkpoints } = value;
    const existed = wasKnown || wasSaved;
    const summary = [
      existed
        ? `Sandbox ${sandbox} is destroyed, with what was saved of it.`
        : `There was no sandbox ${sandbox}; nothing was destroyed.`,
    ];
    if (checkpoints > 0)
      summary.push(
        endsAll
          ? `Its checkpoints are deleted: ${checkpoints}.`
          : `Its checkpoints stay: ${checkpoints}. With checkpoints true they are deleted as well.`,
      );
    const checkpoints_left = endsAll ? 0 : checkpoints;
    return { content: [text(summary.join(" "))], structured: { sandbox, existed, checkpoints_left } };
  },
});

/** @throws {ToolError} `not_found`, `invalid_argument` for a checkpoint of another sandbox */
async function deleteCheckpoint({ env, principal }: ToolContext, sandbox: string, checkpoint: string) {
  const left = unwrap(await accountOf(env, principal.id).removeCheckpoint(sandbox, checkpoint));
  const summary = `Checkpoint ${checkpoint} is deleted. Sandbox ${sandbox} stays as it is; checkpoints of it that are left: ${left}.`;
  return { content: [text(summary)], structured: { sandbox, existed: true, checkpoints_left: left } };
}

function oneOrAll(): ToolError {
  return new ToolError(
    "invalid_argument",
    "checkpoint does not go with checkpoints true: the one deletes a single checkpoint, the other ends the sandbox with all of them; nothing was destroyed.",
    "Leave one of the two out.",
  );
}
