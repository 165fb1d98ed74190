"""Where a Python kernel's output goes.

sys.stdout and sys.stderr are replaced by objects that live as long as the kernel and write to the log of the current run.
File descriptors 1 and 2 become pipes that a thread reads into the same log, so that the output of child processes and C code
is there too. Descriptor 1 was the executor's protocol channel. The channel moves to another number. Only the executor's own
module uses it, because that module gets its own `print` and `sys`. sys.stdout is never the channel.

After 32 KiB or a twentieth of a second a run's output goes to the files `<files>.out` and `<files>.err`, which sandboxd
follows during the run. At the end of the run, short output goes into the run's result document, and its file is removed.
"""

import errno
import fcntl
import sys

from .files import NoInput, Stream
from .log import Log, encode
from .own import json, os, select, threading, time

LATE_BYTES = 16 * 1024
LIVE_AFTER_S = 0.05
TICK_S = 0.02
# Between runs nothing is urgent, and with many kernels shorter ticks would keep the machine busy.
IDLE_TICK_S = LIVE_AFTER_S
IDLE_TICKS = 100
# Marks in a log that earlier output was cleared. In a terminal this text clears the screen. The program `clear` prints the same
# parts in another order, so its output does not count as this mark.
CLEARED = "\x1b[3J\x1b[2J\x1b[H"
PIPE_BYTES = 1024 * 1024


class Output:
    def __init__(self):
        self.lock = threading.RLock()
        self.logs = self.logs_between_runs()
        self.is_active = self.is_forked = False
        # Whether the next output clears earlier output.
        self.is_stale = False
        self.is_interrupted = False
        self.started = 0.0
        self.main = threading.get_ident()
        self.out, self.err, self.no_input = Stream(self, 0), Stream(self, 1), NoInput()
        self.pipes = [os.pipe(), os.pipe()]
        self.waker = os.pipe()
        self.is_asleep = False
        for index, (reader, writer) in enumerate(self.pipes):
            os.set_blocking(reader, False)
            try:
                fcntl.fcntl(writer, 1031, PIPE_BYTES)  # F_SETPIPE_SZ
            except OSError:
                pass
            os.dup2(writer, index + 1)
            os.close(writer)
        os.set_blocking(self.waker[1], False)
        os.register_at_fork(after_in_child=self.after_fork)
        self.thread = threading.Thread(target=self.pump, name="sandbox-mcp-output", daemon=True)
        self.thread.start()

    def install_streams(self):
        """Sets sys.stdout, sys.stderr and sys.stdin again: the executor replaces them before and after each cell."""
        sys.stdout, sys.stderr, sys.stdin = self.out, self.err, self.no_input

    def empty_capture(self, capture):
        """Empties the executor's capture, so that it returns only the run's document. Later text from threads goes to the log."""
        # The lock keeps the order: until the early text is in the log, threads cannot add later text.
        with self.lock:
            capture.write = self.out.write
            early = capture.getvalue()
            capture.seek(0)
            capture.truncate()
            if early:
                self.write(0, early)

    @staticmethod
    def logs_between_runs():
        """Logs for output of threads and children between two runs. The beginning of that output goes to the next run."""
        return [Log(LATE_BYTES, LATE_BYTES), Log(LATE_BYTES, LATE_BYTES)]

    def begin(self, files, cap, tail_bytes):
        with self.lock:
            earlier_logs = self.logs
            self.drain()
            self.logs = [Log(cap, tail_bytes, f"{files}.{name}") for name in ("out", "err")]
            for log, before in zip(self.logs, earlier_logs):
                before.flush()
                if before.head:
                    log.add(bytes(before.head))
                if before.dropped:
                    log.add(f"\n[... {before.dropped} more bytes printed between two runs were not kept ...]\n")
            self.is_interrupted = self.is_stale = False
            self.started = time.monotonic()
            self.is_active = True
        if self.is_asleep:
            self.wake()

    def end(self):
        """Ends the run. Returns its summary: {spilled, stdout: {...}, stderr: {...}}."""
        with self.lock:
            self.drain()
            done, self.logs, self.is_active = self.logs, self.logs_between_runs(), False
        out, err = (log.end() for log in done)
        spilled = not all("text" in one or "data" in one for one in (out, err))
        return {"spilled": spilled, "stdout": out, "stderr": err}

    def clear(self, wait=False):
        """Marks earlier output as cleared. @param wait whether to clear it only at the next output"""
        if self.is_forked:
            return
        with self.lock:
            self.drain()
            self.is_stale = wait
            if not wait:
                self.mark_cleared()

    def mark_cleared(self):
        self.is_stale = False
        for log in self.logs:
            if not log.is_clear:
                log.add(CLEARED)
                log.is_clear = True

    def add(self, index, piece):
        """The caller holds the lock."""
        if self.is_stale:
            self.mark_cleared()
        self.logs[index].add(piece)
        self.logs[index].is_clear = False

    def write(self, index, piece):
        if self.is_forked:
            self.write_through(index, piece)
            return
        if piece:
            with self.lock:
                self.add(index, piece)
        if self.is_interrupted and threading.get_ident() == self.main:
            self.is_interrupted = False
            raise KeyboardInterrupt

    @staticmethod
    def write_through(index, piece):
        """Writes a forked child's output to the pipes, which the parent reads."""
        view = memoryview(encode(piece) if isinstance(piece, str) else piece)
        while view:
            view = view[os.write(index + 1, view) :]

    def drain(self):
        """Reads the pipes' current content. The caller holds the lock."""
        for index, (reader, _) in enumerate(self.pipes):
            # Bounded, because a child that prints endlessly must not delay the end of a run.
            for _ in range(64):
                try:
                    data = os.read(reader, 65536)
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno == errno.EINTR:
                        continue
                    break
                if not data:
                    break
                self.add(index, data)

    def tick(self):
        with self.lock:
            if self.is_active and time.monotonic() - self.started >= LIVE_AFTER_S:
                for log in self.logs:
                    log.flush(live=True)

    def pump(self):
        poll = select.poll()
        for reader in (self.pipes[0][0], self.pipes[1][0], self.waker[0]):
            poll.register(reader, select.POLLIN)
        idle = 0
        while True:
            # Between runs the ticks stop after a while. The next run or output wakes this thread.
            self.is_asleep = not self.is_active and idle > IDLE_TICKS
            tick = TICK_S if self.is_active else IDLE_TICK_S
            events = poll.poll(None if self.is_asleep else tick * 1000)
            idle = 0 if self.is_active or events else idle + 1
            if any(fd == self.waker[0] for fd, _ in events):
                os.read(self.waker[0], 4096)
            has_stderr = any(fd == self.pipes[1][0] for fd, _ in events)
            if has_stderr and self.is_active:
                # Native code may end the process after it has written this. In the pipe, sandboxd finds it then.
                time.sleep(TICK_S)
            if events:
                with self.lock:
                    self.drain()
                    if has_stderr and self.is_active:
                        self.logs[1].flush(live=True)
            self.tick()

    def wake(self):
        try:
            os.write(self.waker[1], b"x")
        except OSError:
            pass

    def flush_now(self):
        """Writes everything to the files when the program flushes its output, because its process may end next."""
        if self.is_forked:
            return
        with self.lock:
            if self.is_active:
                self.drain()
                for log in self.logs:
                    log.flush(live=True)

    def after_fork(self):
        self.lock = threading.RLock()
        self.is_forked = True


class _Sys:
    """The executor's `sys`: the real module with the protocol's stdin."""

    def __init__(self, stdin):
        self.__dict__["stdin"] = stdin

    def __getattr__(self, name):
        return getattr(sys, name)

    def __setattr__(self, name, value):
        setattr(sys, name, value)


def take_protocol():
    """Moves the executor's channel from descriptors 0 and 1 to others."""
    replies = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 64)
    requests = sys.stdin
    raw = getattr(requests.buffer, "raw", requests.buffer)
    # A FileIO made over a standard descriptor does not own the descriptor, so this closes nothing.
    raw.__init__(fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 64), "rb", True)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    return requests, replies


def give_protocol(output, requests, replies):
    """Gives the channel only to the executor's module. From then on sys.stdout is ours, also between cells."""

    def reply(text="", flush=True):
        view = memoryview(f"{text}\n".encode())
        while view:
            view = view[os.write(replies, view) :]
        output.install_streams()

    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
    frame.f_globals.update(print=reply, sys=_Sys(requests), json=json)
    sys.stdin = sys.__stdin__ = output.no_input
    sys.__stdout__, sys.__stderr__ = output.out, output.err
