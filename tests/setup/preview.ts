import { once } from "node:events";
import { get } from "node:http";
import { text } from "node:stream/consumers";

/** Browsers resolve every name below localhost to this machine, but Node asks the resolver. */
export async function textAt({ port, host, pathname }: URL): Promise<string> {
  const [response] = await once(get({ port, path: pathname, headers: { host } }), "response");
  return text(response);
}
