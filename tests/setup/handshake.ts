import { createHash } from "node:crypto";

/** The response to a WebSocket's handshake (RFC 6455, 4.2.2). @param head the headers of the request */
export function acceptOf(head: string): string {
  const key = /sec-websocket-key: (\S+)/i.exec(head)?.[1];
  const accept = createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
  const fields = `Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}`;
  return `HTTP/1.1 101 Switching Protocols\r\n${fields}\r\n\r\n`;
}
