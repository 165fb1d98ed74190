/** Run ids: `<sandbox name>.<sortable random id>`, so that an id identifies its sandbox without a lookup. */
import { MAX_SANDBOX_NAME, SANDBOX_NAME } from "../shared/names.ts";

const CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz";
const RANDOM_CHARACTERS = 16;

const RUN_ID = /^(.+)\.[0-9a-z]{26}(t?)$/;

/** The longest id: the name, a dot, 26 characters and the mark. */
export const MAX_RUN_ID = MAX_SANDBOX_NAME + 28;

/** The last character of a task's id. It shows, without a lookup, that a call for the run needs the scope for tasks. */
const TASK_MARK = "t";

/** A new run id, sortable by time: 10 characters of milliseconds, then 80 random bits. */
export function newRunID(sandbox: string, isTask: boolean): string {
  const random = crypto.getRandomValues(new Uint8Array(RANDOM_CHARACTERS));
  const mark = isTask ? TASK_MARK : "";
  return `${firstIDAt(sandbox, Date.now())}${Array.from(random, (byte) => CROCKFORD[byte & 31]).join("")}${mark}`;
}

/** A text that sorts before all ids of runs requested at `time` or later, and after all earlier ids. */
export function firstIDAt(sandbox: string, time: number): string {
  let characters = "";
  for (let rest = Math.max(time, 0), index = 0; index < 10; index++, rest = Math.floor(rest / 32))
    characters = CROCKFORD[rest % 32] + characters;
  return `${sandbox}.${characters}`;
}

/** When the run was requested, in milliseconds since the epoch. */
export function createdAt(id: string): number {
  const time = localID(id).slice(0, 10);
  return [...time].reduce((sum, character) => sum * 32 + CROCKFORD.indexOf(character), 0);
}

/** The part of the id that names files and marks processes in the sandbox. */
export function localID(id: string): string {
  return id.slice(id.lastIndexOf(".") + 1);
}

/** The sandbox name in a run id; undefined for an invalid id. */
export function sandboxOf(id: string): string | undefined {
  const name = RUN_ID.exec(id)?.[1];
  return name !== undefined && SANDBOX_NAME.test(name) ? name : undefined;
}

export function isTaskID(id: string): boolean {
  return RUN_ID.exec(id)?.[2] === TASK_MARK;
}
