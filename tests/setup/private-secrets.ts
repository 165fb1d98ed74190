/** The secrets of the private API, for tests in Node and in workerd. */

/** A word that occurs nowhere else in memory. */
export const PRIVATE_VALUE = "pv-7Zq/wX2+k9Lr4TsV8nB1mJ6";

/** The principal that may use the secrets. */
const principals = ["token:secrets"];

/** The value of the variable `SECRETS`. */
export const PRIVATE_SECRETS = JSON.stringify([
  {
    name: "api",
    hosts: ["api.private.test"],
    header: "Authorization: Bearer {value}",
    value: PRIVATE_VALUE,
    principals,
    variable: "PRIVATE_API_KEY",
  },
  { name: "git", hosts: ["git.private.test"], basic: "user:{value}", value: PRIVATE_VALUE, principals },
  { name: "query", hosts: ["*.query.test"], query: "key={value}", value: PRIVATE_VALUE, principals },
]);

export interface Arrived {
  host: string;
  url: string;
  authorization?: string | undefined;
  body: string;
}
