/** The part of the system call filter about sockets, also for kernels with modules, which this machine may not have. */
import { expect, it } from "vitest";
import type { Decision } from "../../local/engine/bpf.ts";
import { socketRules } from "../../local/engine/socket-filter.ts";

const [LOAD, JUMP, JUMP_EQUAL, JUMP_GREATER_OR_EQUAL, AND, RETURN] = [0x20, 0x05, 0x15, 0x35, 0x54, 0x06];
const ALLOW = 0x7fff0000;

/** Executes a decision as the kernel does, for a call with these arguments. */
function isAllowed(decision: Decision, given: readonly number[]): boolean {
  let value = 0;
  for (let at = 0; at < decision.length; at++) {
    const [code, yes, no, constant] = decision[at] ?? [RETURN, 0, 0, 0];
    if (code === RETURN) return constant === ALLOW;
    if (code === LOAD) value = given[(constant - 16) / 8] ?? 0;
    else if (code === AND) value &= constant;
    else if (code === JUMP) at += constant;
    else if (code === JUMP_EQUAL) at += value === constant ? yes : no;
    else if (code === JUMP_GREATER_OR_EQUAL) at += value >= constant ? yes : no;
    else throw new Error(`unknown instruction ${code}`);
  }
  throw new Error("the decision has no end");
}

const SOCK_CLOEXEC = 0o2000000;

/** The allowed sockets of the internet, as "family type protocol". */
function allowedSockets(hasIPv6: boolean): string[] {
  const { socket } = socketRules(hasIPv6);
  const numbers = Array.from({ length: 300 }, (_, number) => number);
  return [2, 10].flatMap((family) =>
    numbers.slice(0, 16).flatMap((type) =>
      numbers.flatMap((protocol) => {
        const isOne = isAllowed(socket ?? [], [family, type | SOCK_CLOEXEC, protocol]);
        return isOne ? [`${family} ${type} ${protocol}`] : [];
      }),
    ),
  );
}

const OF_IPV4 = ["2 1 0", "2 1 6", "2 2 0", "2 2 1", "2 2 17"];
const OF_IPV6 = ["10 1 0", "10 1 6", "10 2 0", "10 2 17", "10 2 58"];

it("a sandbox can make only sockets for which the kernel never starts modprobe: TCP, UDP, and ICMP of the own family", () => {
  expect(allowedSockets(true)).toEqual([...OF_IPV4, ...OF_IPV6]);
});

it("a sandbox cannot make sockets of IPv6 on a machine without IPv6, whose kernel would start modprobe each time", () => {
  expect(allowedSockets(false)).toEqual(OF_IPV4);
});
