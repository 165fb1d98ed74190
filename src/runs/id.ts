/** Ids of runs: `<sandbox name>.<sortable random id>`, so that an id finds its sandbox without a look-up. */

const CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz";
const RANDOM_CHARACTERS = 16;

/** A new run id, ordered by time: 10 characters of milliseconds, then 80 random bits. */
export function newRunID(sandbox: string, now = Date.now()): string {
  let time = "";
  for (let rest = now, index = 0; index < 10; index++, rest = Math.floor(rest / 32))
    time = CROCKFORD[rest % 32] + time;
  const random = crypto.getRandomValues(new Uint8Array(RANDOM_CHARACTERS));
  return `${sandbox}.${time}${Array.from(random, (byte) => CROCKFORD[byte & 31]).join("")}`;
}

/** The part of a run id that its own sandbox knows it by: names of files, the mark on its processes. */
export function localID(id: string): string {
  return id.slice(id.indexOf(".") + 1);
}

/** The name of the sandbox that a run id belongs to, or undefined for what is no run id. */
export function sandboxOf(id: string): string | undefined {
  return /^([a-z0-9-]{1,20})\.[0-9a-z]{26}$/.exec(id)?.[1];
}
