"""What is kept of one stream of one run: here while it is short, and in a file once it is long or the run takes long."""

import contextlib
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

    def __init__(self, cap, path=None):
        """Without a path all is kept in memory."""
        self.cap, self.path = cap, path
        self.pending, self.chars = [], 0
        # All that was kept, as long as that is short or there is no file.
        self.head, self.file = bytearray(), None
        self.kept = self.dropped = 0
        self.tail = b""

    def add(self, piece):
        """Takes str or bytes. The caller holds the lock."""
        self.pending.append(piece)
        self.chars += len(piece)
        if self.chars >= BLOCK_CHARS:
            self.flush()

    def flush(self, live=False):
        """Puts what has come to the rest; `live` has that be in the file from now on."""
        pieces, self.pending, self.chars = self.pending, [], 0
        data = b"".join(encode(p) if isinstance(p, str) else p for p in pieces)
        room = max(0, self.cap - self.kept)
        keep = data[:room]
        self.kept += len(keep)
        if self.file is None or self.kept <= MEMORY_BYTES:
            self.head += keep
        if self.file is not None:
            self.put(keep)
        elif len(self.head) > MEMORY_BYTES or (live and self.head):
            self.open()
        if len(data) > room:
            self.drop(data[room:])

    def drop(self, data):
        self.dropped += len(data)
        self.tail = (self.tail + data[-TAIL_BYTES:])[-TAIL_BYTES:]

    def open(self):
        """From here on into the file. Without a place for one it stays capped in memory."""
        if self.path is None:
            return
        try:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            self.file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            self.path = None
            self.cap = min(self.cap, max(self.kept, MEMORY_BYTES * 8))
            return
        self.put(bytes(self.head))

    def put(self, data):
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self.file, view) :]
        except OSError:
            # A full disk must not stop the code: what does not fit counts as dropped.
            self.kept -= len(view)
            self.drop(bytes(view))

    def end(self):
        """Ends the log. `text` is there unless the output is in the file alone, because it is long or no text."""
        self.flush()
        text = self.text()
        if text is None and self.file is None:
            self.open()
        found = {"bytes": self.kept + self.dropped, "dropped": self.dropped}
        if text is not None or self.file is None:
            found["text"] = text or self.head.decode("utf-8", "replace")
        if self.dropped:
            found["tail"] = self.tail.decode("utf-8", "replace")
        if self.file is not None:
            os.close(self.file)
            if text is not None:
                with contextlib.suppress(OSError):
                    os.unlink(self.path)
        return found

    def text(self):
        """All of it, while that is short, and text."""
        if self.file is not None and self.kept > MEMORY_BYTES:
            return None
        try:
            return self.head.decode("utf-8")
        except UnicodeDecodeError:
            return None
