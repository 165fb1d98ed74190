/** Watches of epoll: an event, or a read in /proc, visits all watches, and no other program runs on the processor meanwhile. */
import { existsSync } from "node:fs";
import { describe, expect, it } from "vitest";
import type { EngineSandbox } from "../../local/engine/engine-sandbox.ts";
import { countHidden } from "../../local/engine/kernel-objects.ts";
import { endLater } from "../setup/end-later.ts";
import { startTestEngine, TestSandbox } from "../setup/engine-client.ts";
import { END_FIRST_THREAD, passOn } from "../setup/python-programs.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

/** Watches a file 20,000 times with epoll, by 900 descriptors. */
const WATCH_OFTEN = [
  "import array, os, select, socket, threading, time, ctypes",
  "watched = os.pipe()[0]; copies = [os.dup(watched) for _ in range(900)]; polls = []",
  "for _ in range(23):",
  "  polls.append(select.epoll()); [polls[-1].register(copy, select.EPOLLIN) for copy in copies]",
];
const PUT_POLLS_IN_TRANSIT = [
  "held = socket.socketpair(); rights = array.array('i', [poll.fileno() for poll in polls])",
  "held[0].sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])",
  "for poll in polls: poll.close()",
];
/** The polls wait behind an open file, in a socket that itself waits in a socket. Messages have other lengths. */
const PUT_POLLS_DEEP_IN_TRANSIT = [
  "inner, outer = socket.socketpair(), socket.socketpair()",
  "def give(end, files): end.sendmsg([b'x' * len(files)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', files))])",
  "give(inner[0], [watched]); inner[0].send(b'text'); give(inner[0], [poll.fileno() for poll in polls])",
  "give(outer[0], [watched]); give(outer[0], [inner[1].fileno()])",
  "for one in [*polls, *inner]: one.close()",
];
/** A listening socket has polls in connections that no program has accepted. */
const PUT_POLLS_IN_UNACCEPTED_CONNECTIONS = [
  "server = socket.socket(socket.AF_UNIX); server.bind('/tmp/server'); server.listen()",
  "client = socket.socket(socket.AF_UNIX); client.connect('/tmp/server'); rights = array.array('i', [poll.fileno() for poll in polls])",
  "client.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])",
  "for poll in polls: poll.close()",
];
/** Watches 400 files 500 times each with one epoll, by other numbers of descriptors. */
const WATCH_MANY_FILES_OFTEN = [
  "import os, select, time",
  "poll = select.epoll()",
  "for _ in range(400):",
  "  file, end = os.pipe(); os.close(end)",
  "  for at in range(500, 1000): os.dup2(file, at); poll.register(at, select.EPOLLIN)",
];
/** Watches 100 files 100 times each. A packet to many sockets is an event of each of them. */
const WATCH_FILES_A_LITTLE = [
  "import os, select, time",
  "watched = [os.pipe()[0] for _ in range(100)]; polls = [select.epoll() for _ in range(100)]",
  "[poll.register(file, select.EPOLLIN) for poll in polls for file in watched]",
];
/** Waits for the events of 20,000 ends of pipes, as a server with many connections does. Forked processes have the same epoll. */
const WATCH_MANY_FILES = [
  "import os, select, time",
  "for one in range(25):",
  "  if os.fork() == 0: break",
  "else:",
  "  time.sleep(4); print('kept', flush=True); os._exit(0)",
  "poll = select.epoll(); ends = [end for _ in range(400) for end in os.pipe()]",
  "for end in ends: poll.register(end, select.EPOLLIN)",
  "[os.close(one) for one in (0, 1, 2)]; os.fork(); time.sleep(600)",
];
/**
 * A server with 3,600 connections to itself, which passes some on to a program that does not read them yet, as a Node.js cluster does. On
 * Linux 6.18, two objects for each local port count as watches.
 */
const PASS_ON_CONNECTIONS = [
  "import array, os, select, socket, time",
  "ready, served = os.pipe()",
  "for one in range(8):",
  "  if os.fork() == 0: break",
  "else:",
  "  os.close(served); failed = os.read(ready, 1); time.sleep(4); print('failed' if failed else 'kept', flush=True); os._exit(0)",
  "server = socket.create_server(('127.0.0.1', 0)); poll = select.epoll(); held = socket.socketpair(); kept = []",
  "for number in range(450):",
  "  kept += [socket.create_connection(server.getsockname()), server.accept()[0]]",
  "  poll.register(kept[-1], select.EPOLLIN)",
  "  rights = array.array('i', [kept[-1].fileno()])",
  "  if number < 60: held[0].sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])",
  "[os.close(one) for one in (0, 1, 2, served)]; time.sleep(600)",
];

describe.runIf(existsSync("/sys/kernel/slab/eventpoll_epi"))("watches of epoll", async () => {
  const engine = endLater(await startTestEngine({ limits: { epollWatchesOfMachine: 5000 } }));

  it.each([
    ["one file very often", WATCH_OFTEN],
    ["one file very often, with descriptors that wait in sockets", [...WATCH_OFTEN, ...PUT_POLLS_IN_TRANSIT]],
    [
      "one file very often, with descriptors that wait deep in sockets",
      [...WATCH_OFTEN, ...PUT_POLLS_DEEP_IN_TRANSIT],
    ],
    [
      "one file very often, with descriptors that wait in connections",
      [...WATCH_OFTEN, ...PUT_POLLS_IN_UNACCEPTED_CONNECTIONS],
    ],
    ["one file very often, in a process whose first thread has ended", [...WATCH_OFTEN, ...END_FIRST_THREAD]],
    [
      "one file very often, with descriptors that are passed on to new processes",
      [...WATCH_OFTEN, ...passOn()],
    ],
    ["hundreds of files often", WATCH_MANY_FILES_OFTEN],
    ["a hundred files a hundred times", WATCH_FILES_A_LITTLE],
  ])("the engine ends a sandbox that watches %s", async (_, watch) => {
    const [modest, watcher] = [await TestSandbox.start(engine), await TestSandbox.start(engine)];
    void watcher.python([...watch, "time.sleep(600)"]).catch(() => undefined);
    expect((await watcher.waitForEnd()).reason).toContain("epoll");
    expect((await modest.run("echo unharmed")).stdout).toBe("unharmed");
  });

  it.each([
    ["watches many files once each", WATCH_MANY_FILES],
    ["passes on thousands of connections", PASS_ON_CONNECTIONS],
  ])("the engine ends no sandbox that %s", async (_, serve) => {
    const server = await TestSandbox.start(engine);
    expect((await server.python(serve)).stdout).toBe("kept");
  });

  it("the engine does not end a sandbox in whose connections a file waits, because another one watches many files", async () => {
    const [waiting, server] = [await TestSandbox.start(engine), await TestSandbox.start(engine)];
    const wait = [
      "import array, os, socket, time",
      "server = socket.socket(socket.AF_UNIX); server.bind('/tmp/server'); server.listen()",
      "client = socket.socket(socket.AF_UNIX); client.connect('/tmp/server')",
      "client.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0]))])",
      "open('/tmp/waits', 'w').close(); time.sleep(600)",
    ];
    void waiting.python(wait).catch(() => undefined);
    await waiting.run("until [ -e /tmp/waits ]; do sleep 0.1; done");
    expect((await server.python(WATCH_MANY_FILES)).stdout).toBe("kept");
    expect((await waiting.run("echo unharmed")).stdout).toBe("unharmed");
  });
});

it("a sandbox in whose sockets files wait only for a moment does not count as one with very many watches", async () => {
  const sandbox = { groups: [temporaryDirectory()] } as unknown as EngineSandbox;
  const first = {
    mappings: 0,
    pipeBytes: 0,
    keptPages: 0,
    waiting: 1,
    locks: 0,
    watches: 7,
    directories: 0,
    timers: 0,
  };
  expect(await countHidden(sandbox, async () => first)).toMatchObject({ watches: 0, waiting: 0 });
});
