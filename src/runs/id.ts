/** `<sandbox name>.<sortable random id>`: the id identifies its sandbox without a lookup. */
import { MAX_SANDBOX_NAME, SANDBOX_NAME } from "../shared/names.ts";

const CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz";
const RANDOM_CHARACTERS = 16;

const RUN_ID = /^(.+)\.[0-9a-z]{26}(t?)$/;

/** The name, a dot, 26 characters and the mark. */
export const MAX_RUN_ID = MAX_SANDBOX_NAME + 28;

/** Ends a task's id, and shows without a lookup that a call for the run needs the scope for tasks. */
const TASK_MARK = "t";

/** Sorts by time: 10 characters of milliseconds, then 80 random bits. */
export function newRunID(sandbox: string, isTask: boolean, now = Date.now()): string {
  const random = crypto.getRandomValues(new Uint8Array(RANDOM_CHARACTERS));
  const mark = isTask ? TASK_MARK : "";
  return `${firstIDAt(sandbox, now)}${Array.from(random, (byte) => CROCKFORD[byte & 31]).join("")}${mark}`;
}

/** Sorts before all ids of runs requested at `time` or later, and after all earlier ids. */
export function firstIDAt(sandbox: string, time: number): string {
  let characters = "";
  for (let rest = Math.max(time, 0), index = 0; index < 10; index++, rest = Math.floor(rest / 32))
    characters = CROCKFORD[rest % 32] + characters;
  return `${sandbox}.${characters}`;
}

/** Milliseconds since the epoch. */
export function createdAt(id: string): number {
  const time = localID(id).slice(0, 10);
  return [...time].reduce((sum, character) => sum * 32 + CROCKFORD.indexOf(character), 0);
}

/** The part of the id that names files and marks processes in the sandbox. */
export function localID(id: string): string {
  return id.slice(id.lastIndexOf(".") + 1);
}

/** Undefined for an invalid id. */
export function sandboxOf(id: string): string | undefined {
  const name = RUN_ID.exec(id)?.[1];
  return name !== undefined && SANDBOX_NAME.test(name) ? name : undefined;
}

export function isTaskID(id: string): boolean {
  return RUN_ID.exec(id)?.[2] === TASK_MARK;
}
