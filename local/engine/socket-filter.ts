/** The part of the system call filter about sockets. */
import { existsSync } from "node:fs";
import { socketOptions } from "./allow-list.ts";
import { allow, argument, decideByValue, type Decision, ignoreCall, onlyValues, refuse } from "./bpf.ts";

const EPERM = 1;
const ENOPROTOOPT = 92;
const EPROTONOSUPPORT = 93;
const ESOCKTNOSUPPORT = 94;
const EAFNOSUPPORT = 97;

const AF_UNIX = 1;
const AF_INET = 2;
const AF_INET6 = 10;

/**
 * Only NETLINK_ROUTE is allowed, with which the C library lists interfaces. With other protocols, processes can send each other
 * messages, and unread messages count in no memory limit of the sandbox.
 */
const AF_NETLINK = 16;
const NETLINK_ROUTE = 0;

/** The bits of a socket's type. The bits above them are SOCK_NONBLOCK and SOCK_CLOEXEC. */
const TYPE_BITS = 0xf;

const IPPROTO_ICMP = 1;
const IPPROTO_ICMPV6 = 58;

/**
 * SOCK_STREAM with TCP, and SOCK_DGRAM with UDP and the family's ICMP. For any other protocol the kernel starts the machine's
 * modprobe twice, outside the sandbox, at each call: also for ICMP of the other family, and for SOCK_RAW without a protocol. In a test,
 * 100 processes with a fifth of a processor made all others wait for seconds. Programs that try MPTCP by themselves, such as Go's, fall
 * back to TCP. SOCK_RAW fails with the error for programs without the right to use it.
 */
const internet = (icmp: number) =>
  decideByValue(
    argument(1),
    [
      [1, onlyValues(argument(2), [0, 6], EPROTONOSUPPORT)],
      [2, onlyValues(argument(2), [0, 17, icmp], EPROTONOSUPPORT)],
      [3, refuse(EPERM)],
    ],
    refuse(ESOCKTNOSUPPORT),
    TYPE_BITS,
  );

/**
 * Options, by level, that a program sets without an effect. IP_RECVERR and IPV6_RECVERR: unread errors of a socket, up to 200 KiB,
 * count in no control group. SO_SNDBUF and SO_RCVBUF: the kernel counts only a small part of the memory that a buffer can keep
 * (`socket-usage.ts`), and allows buffers of 8 MiB and more. Programs cannot rely on the size of a buffer. SO_LINGER: closing a
 * connection with unsent data would wait. If the last references to connections are in messages that nobody can read (SCM_RIGHTS),
 * a thread of the kernel closes them, and this thread serves the whole machine. SO_MAX_PACING_RATE and SO_KEEPALIVE: timers of the
 * kernel then send the packets, which counts as no program's processor time. 40,000 slow connections took 0.8 processors.
 * Connections cannot break unnoticed, because they do not leave the machine.
 */
const unavailable = new Map([
  [0, [11]],
  [1, [7, 8, 9, 13, 47]],
  [41, [25]],
]);

const optionRule = (ifUnavailable: Decision) =>
  decideByValue(
    argument(1),
    socketOptions.map(([level, options]) => [
      level,
      decideByValue(
        argument(2),
        options.map((option) => [option, unavailable.get(level)?.includes(option) ? ifUnavailable : allow]),
        refuse(ENOPROTOOPT),
      ),
    ]),
    refuse(ENOPROTOOPT),
  );

/** @param hasIPv6 whether the kernel has IPv6 now: for a family that it does not have, it would start modprobe */
export const socketRules = (hasIPv6 = existsSync("/proc/net/if_inet6")): Record<string, Decision> => ({
  socket: decideByValue(
    argument(0),
    [
      [AF_UNIX, allow],
      [AF_NETLINK, onlyValues(argument(2), [NETLINK_ROUTE], EAFNOSUPPORT)],
      [AF_INET, internet(IPPROTO_ICMP)],
      [AF_INET6, hasIPv6 ? internet(IPPROTO_ICMPV6) : refuse(EAFNOSUPPORT)],
    ],
    refuse(EAFNOSUPPORT),
  ),
  // For a family without pairs, the kernel would make two sockets before it refuses the pair.
  socketpair: onlyValues(argument(0), [AF_UNIX], EAFNOSUPPORT),
  // The C library's resolver fails if it cannot set IP_RECVERR, and other programs if they cannot set the size of a buffer.
  setsockopt: optionRule(ignoreCall),
  getsockopt: optionRule(allow),
});
