"""What is kept of one stream of one run: in memory first, in a file once it is told to, never more than its cap."""

import os
import re

MEMORY_BYTES = 32 * 1024
BLOCK_CHARS = 8 * 1024
TAIL_BYTES = 16 * 1024

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
