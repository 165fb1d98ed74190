import { once } from "node:events";
import { request } from "node:http";
import { text } from "node:stream/consumers";

/** Browsers resolve every name below localhost to this machine, but Node asks the resolver. */
export async function textAt({ port, host, pathname }: URL, body?: string): Promise<string> {
  const length = body === undefined ? {} : { "content-length": body.length };
  const asked = request({ port, path: pathname, headers: { host, ...length } }).end(body);
  const [response] = await once(asked, "response");
  return text(response);
}
