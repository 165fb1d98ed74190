/** Which sandboxes the engine ends because the kernel works for their pseudo terminals and Unix sockets. */
import { existsSync } from "node:fs";
import { expect, it } from "vitest";
import { endLater } from "../setup/end-later.ts";
import { startTestEngine, TestSandbox } from "../setup/engine-client.ts";
import { canFreeze } from "../setup/processes.ts";

const showsThreads = existsSync("/proc/2/task/2/children");

/** Programs that make the kernel's threads work. */
const THREAD_WORK = {
  "by pseudo terminals": [
    "import os",
    "for one in range(9):",
    "  if os.fork() == 0: break",
    "master, slave = os.openpty(); os.set_blocking(master, False)",
    "while True:",
    "  try: os.write(master, b'x' * 4096); os.read(master, 65536)",
    "  except BlockingIOError: pass",
  ],
  "by looking for cycles among thousands of Unix sockets": [
    "import array, os, socket, time",
    "def send(end, passed):",
    "  rights = array.array('i', [passed.fileno()])",
    "  end.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])",
    // The kernel limits the sockets in transit of each user.
    "for user in range(1000, 1012):",
    "  if os.fork() == 0:",
    "    os.setgid(user); os.setuid(user); kept = []",
    "    for _ in range(450):",
    "      a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
    "      send(a, b); send(b, a); a.close(); kept.append(b)",
    "    while True:",
    "      for end in socket.socketpair(): end.close()",
    "time.sleep(600)",
  ],
};

it.runIf(showsThreads).each([
  ["by pseudo terminals", "pseudo terminals"],
  ["by looking for cycles among thousands of Unix sockets", "Unix sockets"],
] as const)(
  "the kernel's threads: the engine ends a sandbox that makes them work %s",
  async (how, reason) => {
    const engine = endLater(await startTestEngine({ limits: { kernelThreadProcessorsOfMachine: 0.1 } }));
    const [modest, busy] = [await TestSandbox.start(engine), await TestSandbox.start(engine)];
    void busy.python(THREAD_WORK[how]).catch(() => undefined);
    expect((await busy.waitForEnd()).reason).toContain(reason);
    expect((await modest.run("echo unharmed")).stdout).toBe("unharmed");
  },
);

it.runIf(showsThreads && canFreeze).each([
  ["with idle pseudo terminals", ["held = [os.openpty() for _ in range(20)]"]],
  [
    "with thousands of idle Unix sockets",
    [
      "for _ in range(7):",
      "  if os.fork() == 0:",
      "    held = [socket.socketpair() for _ in range(450)]; [os.close(one) for one in (0, 1, 2)]; time.sleep(600)",
      "time.sleep(1)",
    ],
  ],
])(
  "the kernel's threads: a sandbox %s is not ended because another one uses a few terminals",
  async (_, hold) => {
    const engine = endLater(await startTestEngine({ limits: { kernelThreadProcessorsOfMachine: 0.1 } }));
    const [idle, busy] = [await TestSandbox.start(engine), await TestSandbox.start(engine)];
    const open = "open('/tmp/open', 'w').close()";
    const wait = "os.system('sleep 8'); print('kept', flush=True); os._exit(0)";
    const kept = idle.python(["import os, socket, time", ...hold, open, wait]);
    void kept.catch(() => undefined);
    await idle.run("until [ -e /tmp/open ]; do sleep 0.1; done");
    void busy.python(THREAD_WORK["by pseudo terminals"]).catch(() => undefined);
    expect((await busy.waitForEnd()).reason).toContain("pseudo terminals");
    expect((await kept).stdout).toBe("kept");
  },
);

it("pseudo terminals: the engine ends a sandbox whose processes open and close them without a pause, and none with open ones", async () => {
  const engine = endLater(await startTestEngine({ limits: { terminalWaitersOfMachine: 32 } }));
  const [modest, busy] = [await TestSandbox.start(engine), await TestSandbox.start(engine)];
  const kept = modest.python([
    "import os, time",
    "for _ in range(40): terminal = os.openpty(); os.fork() or time.sleep(600)",
  ]);
  void kept.catch(() => undefined);
  void busy
    .python([
      "import os",
      "for _ in range(6): os.fork()",
      "while True:",
      "  try: os.close(os.open('/dev/ptmx', os.O_RDWR))",
      "  except OSError: pass",
    ])
    .catch(() => undefined);
  expect((await busy.waitForEnd()).reason).toContain("pseudo terminals at once");
  expect((await modest.run("echo unharmed")).stdout).toBe("unharmed");
});
