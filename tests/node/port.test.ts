/** The port of the local server, which somebody else may take between the look for it and its use. */
import { expect, it } from "vitest";
import { startOnPort } from "../../cli/lock.ts";

const taken = new Error("Address already in use");

/** A start that finds its port taken so many times. */
function takenTimes(times: number) {
  const ports: number[] = [];
  const start = async (port: number) => {
    ports.push(port);
    if (ports.length <= times) throw taken;
    return port;
  };
  return { ports, start };
}

const isTaken = (error: unknown) => error === taken;

it("is another one where any will do", async () => {
  const { ports, start } = takenTimes(2);
  expect(await startOnPort(0, start, isTaken)).toBe(ports[2]);
  expect(ports).toHaveLength(3);
});

it("is not looked for without end, nor after another error", async () => {
  await expect(startOnPort(0, takenTimes(100).start, isTaken)).rejects.toBe(taken);
  await expect(startOnPort(0, takenTimes(1).start, () => false)).rejects.toBe(taken);
});

it("is no other than the one that was asked for", async () => {
  const { ports, start } = takenTimes(1);
  const free = await startOnPort(0, async (port) => port, isTaken);
  await expect(startOnPort(free, start, isTaken)).rejects.toBe(taken);
  expect(ports).toEqual([free]);
});
