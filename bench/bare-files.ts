/** A file server for `bench/figures/transfer.ts`: `GET` sends the file of its argument, `PUT` writes that file's copy `.new`. */
import { createReadStream, createWriteStream, statSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { pipeline } from "node:stream/promises";

const path = process.argv[2] ?? "";

const server = createServer((request, response) => {
  const work =
    request.method === "PUT"
      ? pipeline(request, createWriteStream(`${path}.new`)).then(() => response.end())
      : pipeline(createReadStream(path), response.writeHead(200, { "content-length": statSync(path).size }));
  work.catch(() => response.destroy());
});
server.requestTimeout = 0;
server.listen(0, "127.0.0.1", () => process.send?.((server.address() as AddressInfo).port));
process.on("disconnect", () => process.exit());
