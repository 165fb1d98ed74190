import * as z from "zod";
import { isTaskID } from "../runs/id.ts";
import type { RunView } from "../runs/run-types.ts";
import { signInAnswer, gitHint, gitQuestion } from "./git-sign-in.ts";
import { artifactOutput } from "./artifact.ts";
import { defineTool, runField, waitField, requireSandboxOf } from "./define.ts";
import { runDownloads, addDownloads, wholeLog } from "./download.ts";
import { followTask } from "./follow-task.ts";
import { PAGE_BYTES } from "../runs/runs.ts";
import { pageOutput } from "./log-page.ts";
import { runAnswer, wholeFields } from "./run-result.ts";

export const getResult = defineTool({
  name: "get_result",
  title: "Get a result",
  description: `Waits for a run; returns its state, output and result. Results are kept for days.

With cursor: the log from that byte, and the next cursor. Start at 0 to page long output or follow a run.`,
  input: z.strictObject({
    id: runField(),
    wait_seconds: waitField(),
    cursor: z.number().int().min(0).optional(),
    artifact: z.string().max(4096).optional().describe("File that a task left; cursor counts its bytes."),
  }),
  hasLongAnswers: true,
  annotations: { readOnlyHint: true },
  scopes: ["sandbox:read"],
  taskScopes: ["tasks:run"],
  async handle({ id, wait_seconds, cursor, artifact }, context) {
    if (artifact !== undefined) return artifactOutput(context, id, artifact, cursor);
    const followsQuestion = context.questionedRun === id;
    const before = followsQuestion && (await signInAnswer(context, { isTask: isTaskID(id) }));
    if (before) return runAnswer(context, before.run, wholeFields, before.hint);
    const wholeAnswer = (run: RunView) => {
      const question = gitQuestion(context, run, { isRepeatable: true });
      return question ? { content: [], question } : runAnswer(context, run, wholeFields);
    };
    if (cursor === undefined && isTaskID(id))
      return wholeAnswer(await followTask(context, id, wait_seconds * 1000));
    const deadline = Date.now() + wait_seconds * 1000;
    const { run, page } = await context.reading(requireSandboxOf(id), (actor, owner) =>
      actor.readRun(owner, {
        id,
        waitMs: Math.max(0, deadline - Date.now()),
        cursor,
        maxBytes: PAGE_BYTES,
        onProgress: context.progress,
        // A program shows output when it arrives. A model waits for a page, because each call costs the model time and tokens.
        until: context.isStructured ? "output" : "page",
      }),
    );
    if (!page) return wholeAnswer(run);
    const hint = page.next < run.logBytes ? undefined : await gitHint(context, run);
    const { content, structured } = pageOutput(run, page, hint, { isRaw: context.isRaw });
    const isFirst = cursor === 0 && page.next < run.logBytes;
    const downloads = isFirst ? await runDownloads(context, id, wholeLog(run)) : [];
    // The links follow the head, because all later blocks are the log itself.
    const head = addDownloads(context, content.slice(0, 1), downloads);
    return { content: [...head, ...content.slice(1)], structured };
  },
});
