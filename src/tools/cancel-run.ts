import * as z from "zod";
import { defineTool, runField, text, requireSandboxOf } from "./define.ts";
import { anyRunFields, anyRunOutput, runAnswer } from "./run-result.ts";
import { hiddenImagesText } from "./texts.ts";

const WAIT_MS = 10_000;

export const cancelRun = defineTool({
  name: "cancel_run",
  title: "Cancel a run",
  description: "Stops a command or task with all its processes, or interrupts code. Returns what it printed.",
  input: z.strictObject({ id: runField() }),
  output: anyRunOutput,
  annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: true },
  scopes: ["sandbox:exec"],
  taskScopes: ["tasks:run"],
  async handle({ id }, context) {
    const run = await context.sandbox(requireSandboxOf(id), (actor, owner) =>
      actor.cancelRun(owner, id, WAIT_MS),
    );
    const { content: blocks, structured } = await runAnswer(context, run, anyRunFields);
    // Clients may ignore images of a tool with an output schema. get_result has none, so it shows the images.
    const content = blocks.filter(({ type }) => type !== "image");
    if (content.length < blocks.length)
      content.push(text(hiddenImagesText(blocks.length - content.length, id)));
    return { content, structured };
  },
});
