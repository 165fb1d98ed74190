/** A server for `bench/figures/proxy.ts`: `GET /<bytes>` returns that many bytes. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Readable } from "node:stream";

const piece = Buffer.alloc(65_536, "x");

const server = createServer((request, response) => {
  let left = Number(request.url?.slice(1));
  response.writeHead(200, { "content-length": left });
  const body = new Readable({
    highWaterMark: 4 * piece.length,
    read() {
      const next = left > piece.length ? piece : piece.subarray(0, left);
      left -= next.length;
      this.push(next.length > 0 ? next : null);
    },
  });
  body.pipe(response);
  response.on("close", () => body.destroy());
});
server.listen(0, "127.0.0.1", 1024, () => process.send?.((server.address() as AddressInfo).port));
process.on("disconnect", () => process.exit());
