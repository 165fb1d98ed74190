/** Ids of runs: `<sandbox name>.<sortable random id>`, so that an id finds its sandbox without a look-up. */

const CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz";
const RANDOM_CHARACTERS = 16;

const RUN_ID = /^([a-z0-9-]{1,20})\.[0-9a-z]{26}(t?)$/;

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
  return id.slice(id.indexOf(".") + 1);
}

/** The name of the sandbox that a run id belongs to; undefined when `id` is not a run id. */
export function sandboxOf(id: string): string | undefined {
  return RUN_ID.exec(id)?.[1];
}

/** Whether the id is that of a task. */
export function isTaskID(id: string): boolean {
  return RUN_ID.exec(id)?.[2] === TASK_MARK;
}
