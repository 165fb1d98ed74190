/** The part of the system call filter about sockets. */
import {
  allowed,
  AND,
  block,
  type Instruction,
  JUMP_EQUAL,
  LOAD,
  OFFSET_FIRST_ARGUMENT,
  OFFSET_SECOND_ARGUMENT,
  offsetOfArgument,
  refused,
} from "./bpf.ts";

const ENODEV = 19;
const ENOPROTOOPT = 92;
const EPROTONOSUPPORT = 93;
const ESOCKTNOSUPPORT = 94;
const EAFNOSUPPORT = 97;

const AF_UNIX = 1;
const AF_INET = 2;
const AF_INET6 = 10;

/**
 * Only NETLINK_ROUTE is allowed, by which the C library lists interfaces. By the other protocols processes can send each other
 * messages, and unread messages count in no memory limit of the sandbox.
 */
const AF_NETLINK = 16;
const NETLINK_ROUTE = 0;

/**
 * SOCK_STREAM with TCP, and SOCK_DGRAM with UDP, ICMP and ICMPv6. For any other protocol the kernel starts the machine's
 * modprobe, outside the sandbox, at each call. Programs that try MPTCP by themselves, such as Go's, fall back to TCP.
 */
const protocols: [type: number, protocols: number[]][] = [
  [1, [0, 6]],
  [2, [0, 17, 1, 58]],
];

/** The kernel refuses it with an error that programs know. */
const SOCK_RAW = 3;

/** The bits above it are SOCK_NONBLOCK and SOCK_CLOEXEC. */
const TYPE_BITS = 0xf;

const refusedOptions: [level: number, error: number, options: number[]][] = [
  // SOL_SOCKET: SO_ATTACH_FILTER, SO_ATTACH_BPF, SO_ATTACH_REUSEPORT_CBPF, SO_ATTACH_REUSEPORT_EBPF. All compiled filters of the
  // machine share one pool (net.core.bpf_jit_limit). If it is full, no sandbox can start: see `ownFilters`.
  [1, ENOPROTOOPT, [26, 50, 51, 52]],
  // IPPROTO_TCP: TCP_MD5SIG, TCP_MD5SIG_EXT. The keys that they set count in no control group.
  [6, ENOPROTOOPT, [14, 32]],
  // IPPROTO_IP, IPPROTO_IPV6: joining a multicast or anycast group. Each call searches all groups of a device, under the lock
  // of all network devices of the machine. ENODEV is the result where no device has multicast.
  [0, ENODEV, [35, 39, 42, 46]],
  [41, ENODEV, [20, 27, 42, 46]],
];

export interface SocketCalls {
  socket: number;
  socketpair: number;
  setsockopt: number;
}

export function socketRules({ socket, socketpair, setsockopt }: SocketCalls): Instruction[] {
  const onlyAllowed = (value: number) => block(value, [allowed]);
  const internet = protocols.flatMap(([type, numbers]) =>
    block(type, [
      [LOAD, 0, 0, offsetOfArgument(2)],
      ...numbers.flatMap(onlyAllowed),
      refused(EPROTONOSUPPORT),
    ]),
  );
  const options = refusedOptions.flatMap(([level, error, numbers]) =>
    block(level, [
      [LOAD, 0, 0, offsetOfArgument(2)],
      ...numbers.flatMap((number) => block(number, [refused(error)])),
      allowed,
    ]),
  );
  return [
    ...block(setsockopt, [[LOAD, 0, 0, OFFSET_SECOND_ARGUMENT], ...options, allowed]),
    // The kernel makes two sockets of any family before it finds out that the family has no pairs.
    ...block(socketpair, [
      [LOAD, 0, 0, OFFSET_FIRST_ARGUMENT],
      ...onlyAllowed(AF_UNIX),
      refused(EAFNOSUPPORT),
    ]),
    ...block(socket, [
      [LOAD, 0, 0, OFFSET_FIRST_ARGUMENT],
      ...onlyAllowed(AF_UNIX),
      ...block(AF_NETLINK, [
        [LOAD, 0, 0, offsetOfArgument(2)],
        ...onlyAllowed(NETLINK_ROUTE),
        refused(EAFNOSUPPORT),
      ]),
      [JUMP_EQUAL, 2, 0, AF_INET],
      [JUMP_EQUAL, 1, 0, AF_INET6],
      refused(EAFNOSUPPORT),
      [LOAD, 0, 0, OFFSET_SECOND_ARGUMENT],
      [AND, 0, 0, TYPE_BITS],
      ...internet,
      ...onlyAllowed(SOCK_RAW),
      refused(ESOCKTNOSUPPORT),
    ]),
  ];
}
