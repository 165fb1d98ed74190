import * as z from "zod";
import { accountOf } from "../actors/account-of.ts";
import { unlessReset } from "../actors/sandbox-client.ts";
import { unwrap } from "../shared/errors.ts";
import { type ToolContext, defineTool, sandboxName, text } from "./define.ts";
import { checkpointDeletedText, checkpointsLeftText, destroyedText, oneOrAllCheckpoints } from "./texts.ts";

export const destroySandbox = defineTool({
  name: "destroy_sandbox",
  title: "Destroy a sandbox",
  description:
    "Deletes a sandbox for good: processes, files and saved workspace. The next call with its name makes an empty one.",
  input: z.strictObject({
    sandbox: sandboxName(),
    checkpoints: z.boolean().default(false).describe("Also delete its checkpoints."),
    checkpoint: z.string().max(64).optional().describe("Delete only this checkpoint."),
  }),
  output: z.object({ sandbox: z.string(), existed: z.boolean(), checkpoints_left: z.number() }),
  annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: true },
  scopes: ["sandbox:write"],
  async handle({ sandbox, checkpoints: deletesAll, checkpoint }, context) {
    if (checkpoint !== undefined) {
      if (deletesAll) throw oneOrAllCheckpoints();
      return await deleteCheckpoint(context, sandbox, checkpoint);
    }
    const { wasKnown, wasSaved, checkpoints } = await context.sandbox(sandbox, (actor, owner) =>
      actor.destroySandbox(owner, deletesAll ? "checkpoints" : "workspace"),
    );
    const existed = wasKnown || wasSaved;
    const summary = [destroyedText(sandbox, existed)];
    if (checkpoints > 0) summary.push(checkpointsLeftText(checkpoints, deletesAll));
    const checkpoints_left = deletesAll ? 0 : checkpoints;
    return { content: [text(summary.join(" "))], structured: { sandbox, existed, checkpoints_left } };
  },
});

/** @throws {ToolError} `not_found`, `invalid_argument` for a checkpoint of another sandbox */
async function deleteCheckpoint({ env, principal }: ToolContext, sandbox: string, checkpoint: string) {
  const left = await unlessReset(sandbox, async () =>
    unwrap(await accountOf(env, principal.id).removeCheckpoint(sandbox, checkpoint)),
  );
  const summary = checkpointDeletedText(checkpoint, sandbox, left);
  return { content: [text(summary)], structured: { sandbox, existed: true, checkpoints_left: left } };
}
