"""Where a Python kernel's output goes.

sys.stdout and sys.stderr are replaced by objects that live as long as the kernel and write to the run of the moment.
File descriptors 1 and 2 become pipes that a thread drains into the same place, so that child processes and C code are
heard too; the descriptor that used to be 1 is the executor's protocol channel and moves out of everybody's reach.

A run's output stays in memory while it is small and short; past 32 KiB or half a second it goes to the run's files, those of
a command, where it can be read while the run goes on: `<files>.out` and `<files>.err`.
"""

import errno
import fcntl
import io
import os
import re
import select
import sys
import threading
import time

MEMORY_BYTES = 32 * 1024
BLOCK_CHARS = 8 * 1024
TAIL_BYTES = 16 * 1024
LATE_BYTES = 16 * 1024
SPILL_AFTER_S = 0.5
TICK_S = 0.2
IDLE_TICKS = 25
PIPE_BYTES = 1024 * 1024

_SURROGATES = re.compile("[\ud800-\udfff]")


def encode(text):
    """UTF-8; lone surrogates become U+FFFD."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return _SURROGATES.sub("\ufffd", text).encode("utf-8")


class Log:
    """One stream of one run: at most `cap` bytes kept, what comes after is counted and its end remembered."""

    def __init__(self, cap, path=None, on_full=None):
        self.cap, self.path, self.on_full = cap, path, on_full
        self.pending, self.chars = [], 0
        self.memory, self.file = bytearray(), None
        self.kept = self.dropped = 0
        self.tail = b""

    def add(self, piece):
        """Takes str or bytes. The caller holds the lock."""
        self.pending.append(piece)
        self.chars += len(piece)
        if self.chars >= BLOCK_CHARS:
            self.flush()

    def flush(self):
        if not self.pending:
            return
        pieces, self.pending, self.chars = self.pending, [], 0
        data = b"".join(encode(p) if isinstance(p, str) else p for p in pieces)
        room = max(0, self.cap - self.kept)
        self.keep(data[:room])
        if len(data) > room:
            self.drop(data[room:])

    def keep(self, data):
        self.kept += len(data)
        if self.file is not None:
            self.put(data)
            return
        self.memory += data
        if len(self.memory) > MEMORY_BYTES and self.on_full:
            self.on_full()

    def drop(self, data):
        self.dropped += len(data)
        self.tail = (self.tail + data[-TAIL_BYTES:])[-TAIL_BYTES:]

    def spill(self):
        """From here on into the file."""
        if self.file is not None:
            return
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        self.file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        data, self.memory = bytes(self.memory), bytearray()
        self.put(data)

    def put(self, data):
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self.file, view) :]
        except OSError:
            # A full disk must not stop the code: what does not fit counts as dropped.
            self.kept -= len(view)
            self.drop(bytes(view))

    def summary(self):
        found = {"bytes": self.kept + self.dropped, "dropped": self.dropped}
        if self.file is None:
            found["text"] = self.memory.decode("utf-8", "replace")
        if self.dropped:
            found["tail"] = self.tail.decode("utf-8", "replace")
        return found

    def close(self):
        if self.file is not None:
            os.close(self.file)
            self.file = None


class Output:
    """Both streams of the kernel and the run they belong to at the moment."""

    def __init__(self):
        self.lock = threading.RLock()
        self.logs = self.late()
        self.active = self.spilled = self.forked = False
        self.interrupted = False
        self.started = 0.0
        self.out, self.err = Stream(self, 0), Stream(self, 1)
        self.pipes = [os.pipe(), os.pipe()]
        self.waker = os.pipe()
        self.asleep = False
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

    @staticmethod
    def late():
        """Takes what threads and children print while no run is there; its beginning goes to the next run."""
        return [Log(LATE_BYTES), Log(LATE_BYTES)]

    def begin(self, files, cap):
        with self.lock:
            early = self.logs
            self.drain()
            self.logs = [Log(cap, f"{files}.{name}", self.spill) for name in ("out", "err")]
            for log, before in zip(self.logs, early):
                before.flush()
                if before.memory:
                    log.add(bytes(before.memory))
            self.spilled = self.interrupted = False
            self.started = time.monotonic()
            self.active = True
        if self.asleep:
            self.wake()

    def end(self):
        """Ends the run and gives its summary: {spilled, stdout: {...}, stderr: {...}}."""
        with self.lock:
            self.drain()
            for log in self.logs:
                log.flush()
            done, self.logs, self.active = self.logs, self.late(), False
            found = {"spilled": self.spilled, "stdout": done[0].summary(), "stderr": done[1].summary()}
            for log in done:
                log.close()
        return found

    def spill(self):
        """Both streams of a run go to files together. Without a place for them they stay capped in memory."""
        if not self.active or self.spilled:
            return
        try:
            for log in self.logs:
                log.spill()
            self.spilled = True
        except OSError:
            for log in self.logs:
                log.on_full = None
                log.cap = min(log.cap, max(log.kept, MEMORY_BYTES * 8))

    def write(self, index, piece):
        if self.forked:
            self.write_through(index, piece)
            return
        with self.lock:
            self.logs[index].add(piece)
        if self.interrupted:
            self.interrupted = False
            raise KeyboardInterrupt

    @staticmethod
    def write_through(index, piece):
        """A forked child's output reaches the parent through the pipes."""
        view = memoryview(encode(piece) if isinstance(piece, str) else piece)
        while view:
            view = view[os.write(index + 1, view) :]

    def drain(self):
        """Takes what is in the pipes now. The caller holds the lock."""
        for index, (reader, _) in enumerate(self.pipes):
            # Bounded, so that a child that prints without end cannot hold up the end of a run.
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
                self.logs[index].add(data)

    def tick(self):
        """Shows what a long run printed so far."""
        with self.lock:
            if not self.active or time.monotonic() - self.started < SPILL_AFTER_S:
                return
            for log in self.logs:
                log.flush()
            if any(log.memory for log in self.logs):
                self.spill()

    def pump(self):
        poll = select.poll()
        for reader in (self.pipes[0][0], self.pipes[1][0], self.waker[0]):
            poll.register(reader, select.POLLIN)
        idle = 0
        while True:
            # A kernel in use ticks; one that nobody uses sleeps until the next run or output wakes it.
            self.asleep = not self.active and idle > IDLE_TICKS
            events = poll.poll(None if self.asleep else TICK_S * 1000)
            idle = 0 if self.active or events else idle + 1
            if any(fd == self.waker[0] for fd, _ in events):
                os.read(self.waker[0], 4096)
            if events:
                with self.lock:
                    self.drain()
            self.tick()

    def wake(self):
        try:
            os.write(self.waker[1], b"x")
        except OSError:
            pass

    def flush_now(self):
        """For the last moment of a process that ends on purpose."""
        with self.lock:
            if self.active:
                self.drain()
                for log in self.logs:
                    log.flush()
                self.spill()

    def after_fork(self):
        self.lock = threading.RLock()
        self.forked = True


class Buffer(io.BufferedIOBase):
    """The binary side of a stream."""

    def __init__(self, stream):
        self.stream = stream

    def writable(self):
        return True

    def write(self, data):
        piece = bytes(data)
        self.stream.output.write(self.stream.index, piece)
        return len(piece)

    def fileno(self):
        return self.stream.index + 1

    def flush(self):
        pass

    def close(self):
        pass


class Stream(io.TextIOBase):
    """What sys.stdout and sys.stderr are in a kernel."""

    encoding, errors, newlines, mode = "utf-8", "replace", None, "w"
    line_buffering = write_through = True

    def __init__(self, output, index):
        self.output, self.index = output, index
        self.name = ("<stdout>", "<stderr>")[index]
        self.buffer = Buffer(self)

    def writable(self):
        return True

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self.output.write(self.index, text)
        return len(text)

    def fileno(self):
        return self.index + 1

    def isatty(self):
        return False

    def flush(self):
        pass

    def close(self):
        pass

    def reconfigure(self, **_options):
        pass


class NoInput(io.TextIOBase):
    """sys.stdin during a run: nobody is there to type."""

    encoding, errors, mode, name = "utf-8", "replace", "r", "<stdin>"

    def readable(self):
        return True

    def readline(self, size=-1):
        return ""

    def read(self, size=-1):
        return ""

    def fileno(self):
        return 0

    def close(self):
        pass


def move_protocol():
    """The executor reads requests from 0 and answers on 1; both move, and 0 becomes empty."""
    for stream, number, mode in ((sys.__stdin__, 0, "rb"), (sys.__stdout__, 1, "wb")):
        raw = getattr(stream.buffer, "raw", stream.buffer)
        if raw.fileno() == number:
            # A FileIO made over a standard descriptor does not own it, so this closes nothing.
            raw.__init__(fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 64), mode, True)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
