/** The open part of the page as a URL fragment: `#/sandbox/part/rest`, so that a browser's history and bookmarks work. */
import { host } from "./host.ts";
import { useValue } from "./value.ts";

export const PARTS = ["runs", "files", "about"] as const;
export type Part = (typeof PARTS)[number];

export interface Route {
  sandbox: string;
  isConnect: boolean;
  part: Part;
  rest: string;
}

/** No sandbox has this address, because the sandbox's name would be empty. */
export const CONNECT = "#//connect";

function routeOf(hash: string): Route {
  const [, sandbox = "", part = "", ...rest] = hash.split("/").map(decode);
  return {
    sandbox,
    isConnect: hash === CONNECT,
    part: PARTS.find((known) => known === part) ?? "runs",
    rest: rest.join("/"),
  };
}

export function hrefOf(sandbox: string, part: Part = "runs", rest = ""): string {
  const words = [sandbox, part, ...rest.split("/")].map(encodeURIComponent);
  while (words.at(-1) === "") words.pop();
  return `#/${words.join("/")}`;
}

export function useRoute(): Route {
  return routeOf(useValue(host().place));
}

function decode(word: string): string {
  try {
    return decodeURIComponent(word);
  } catch {
    return "";
  }
}
