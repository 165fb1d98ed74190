/** Ids of runs: `<sandbox name>.<sortable random id>`, so that an id finds its sandbox without a look-up. */
import { MAX_SANDBOX_NAME, SANDBOX_NAME } from "../shared/names.ts";

const CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz";
const RANDOM_CHARACTERS = 16;

const RUN_ID = /^(.+)\.[0-9a-z]{26}(t?)$/;

/** Characters of an id: behind a name a dot, 26 more and the mark. */
export const MAX_RUN_ID = MAX_SANDBOX_NAME + 28;

/** Ends the id of a task, so that the scope it needs is known before the run is looked up. */
const TASK_MARK = "t";

/** A new run id, ordered by time: 10 characters of milliseconds, then 80 random bits. */
export function newRunID(sandbox: string, isTask: boolean, now = Date.now()): string {
  let time = "";
  for (let rest = now, index = 0; index < 10; index++, rest = Math.floor(rest / 32))
    time = CROCKFORD[rest % 32] + time;
  const random = crypto.getRandomValues(new Uint8Array(RANDOM_CHARACTERS));
  const mark = isTask ? TASK_MARK : "";
  return `${sandbox}.${time}${Array.from(random, (byte) => CROCKFORD[byte & 31]).join("")}${mark}`;
}

/** When the run of an id was requested, milliseconds since the epoch. */
export function createdAt(id: string): number {
  const time = localID(id).slice(0, 10);
  return [...time].reduce((sum, character) => sum * 32 + CROCKFORD.indexOf(character), 0);
}

/** The part of a run id that is used inside its sandbox: in names of files, and as the mark on its processes. */
export function localID(id: string): string {
  return id.slice(id.lastIndexOf(".") + 1);
}

/** The name of the sandbox that a run id belongs to; undefined when `id` is not a run id. */
export function sandboxOf(id: string): string | undefined {
  const name = RUN_ID.exec(id)?.[1];
  return name !== undefined && SANDBOX_NAME.test(name) ? name : undefined;
}

/** Whether the id is that of a task. */
export function isTaskID(id: string): boolean {
  return RUN_ID.exec(id)?.[2] === TASK_MARK;
}
