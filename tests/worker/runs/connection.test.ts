/** The connection to sandboxd, where the SDK does not start the container at the first attempt. */
import { describe, expect, it } from "vitest";
import { Connection } from "../../../src/container/connection.ts";

/** An error as the SDK makes it for a container that does not start. */
const sdkError = (why: string) =>
  Object.assign(new Error(`Container failed to start: ${why}`), { code: "INTERNAL_ERROR" });
const ENDED = sdkError("the container is not listening: it is not running");

/** A container whose starts fail with these errors, one after the other, and then succeed. */
function hostThatFails(...errors: Error[]) {
  const host = { starts: 0, isRunning: false };
  const connection = new Connection({
    running: () => host.isRunning,
    start: async () => {
      const error = errors[host.starts++];
      if (error) throw error;
      host.isRunning = true;
    },
    fetch: async () => new Response("answered"),
    used: () => undefined,
  });
  const request = () =>
    connection.fetch("/", {}, new AbortController().signal, (response) => response.text());
  return { host, request };
}

describe("a start that fails", () => {
  it("is repeated when it was that of the container before, which ended meanwhile", async () => {
    const { host, request } = hostThatFails(ENDED);
    expect(await request()).toBe("answered");
    expect(host.starts).toBe(2);
  });

  it("is repeated once", async () => {
    const { host, request } = hostThatFails(ENDED, ENDED);
    await expect(request()).rejects.toBe(ENDED);
    expect(host.starts).toBe(2);
  });

  it("is not repeated for another reason", async () => {
    const full = sdkError("there is no container instance that can be provided");
    const { host, request } = hostThatFails(full);
    await expect(request()).rejects.toBe(full);
    expect(host.starts).toBe(1);
  });
});
