"use strict";
/**
 * Loaded into every Node program of a local sandbox, by NODE_OPTIONS. If the proxy refuses a tunnel, Node's fetch says only
 * "fetch failed" and drops the status line with the reason. So this module requests the tunnel again, and adds the status line
 * to the error.
 */
const { fetch } = globalThis;
const REFUSED = /^Proxy response \(\d+\) !== 200 when HTTP Tunneling$/;

function isRefusal(error) {
  for (let depth = 0; depth < 4 && error instanceof Error; depth++, error = error.cause)
    if (REFUSED.test(error.message)) return true;
  return false;
}

/** The proxy's status line for a tunnel to this host. Undefined if the proxy opens it: then a redirect led to the refused host. */
function statusOfTunnel({ hostname, port }) {
  const proxy = process.env.HTTPS_PROXY ?? process.env.https_proxy;
  const { request } = require("node:http");
  return new Promise((resolve) => {
    request(proxy, { method: "CONNECT", path: `${hostname}:${port || 443}`, agent: false, timeout: 5000 })
      .once("connect", ({ statusCode, statusMessage }, socket) => {
        socket.destroy();
        resolve(statusCode === 200 ? undefined : `${statusCode} ${statusMessage}`);
      })
      .once("timeout", () => resolve(undefined))
      .once("error", () => resolve(undefined))
      .end();
  });
}

async function explain(error, input) {
  try {
    if (!isRefusal(error)) return;
    const status = await statusOfTunnel(new URL(input instanceof Request ? input.url : input));
    if (status === undefined) return;
    const reason = `Tunnel connection failed: ${status}`;
    error.message += `: ${reason}`;
    error.cause = new Error(reason, { cause: error.cause });
  } catch {
    // The program gets the error unchanged.
  }
}

if (typeof fetch === "function") {
  const explained = {
    async fetch(input, init = undefined) {
      try {
        return await fetch(input, init);
      } catch (error) {
        await explain(error, input);
        throw error;
      }
    },
  };
  const descriptor = Object.getOwnPropertyDescriptor(globalThis, "fetch");
  Object.defineProperty(globalThis, "fetch", { ...descriptor, value: explained.fetch });
}
