"""The output of one stream of a run: in memory, and also in a file if the output or the run is long."""

import re

from .own import base64, contextlib, os

MEMORY_BYTES = 32 * 1024
BLOCK_CHARS = 8 * 1024

_SURROGATES = re.compile("[\ud800-\udfff]")


def encode(text):
    """Encodes a text as UTF-8. Lone surrogates become U+FFFD."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return _SURROGATES.sub("\ufffd", text).encode("utf-8")


def _base64(data):
    return base64.b64encode(data).decode("ascii")


class Log:
    """Keeps the first `cap` bytes of a stream. Counts the rest, and keeps the last `tail_bytes` of it."""

    def __init__(self, cap, tail_bytes, path=None):
        """@param path the file's path; without one everything is kept in memory"""
        self.cap, self.tail_bytes, self.path = cap, tail_bytes, path
        self.pending, self.chars = [], 0
        # The kept bytes. Once there is a file, bytes beyond MEMORY_BYTES are only in the file.
        self.head, self.file = bytearray(), None
        self.kept = self.dropped = 0
        self.tail = b""
        # Whether nothing was printed since the output was cleared.
        self.is_clear = True

    def add(self, piece):
        """@param piece str or bytes. The caller holds the lock."""
        self.pending.append(piece)
        self.chars += len(piece)
        if self.chars >= BLOCK_CHARS:
            self.flush()

    def flush(self, live=False):
        """Keeps or counts the added pieces. @param live whether to write to the file even if the output is short"""
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
        self.tail = (self.tail + data[-self.tail_bytes :])[-self.tail_bytes :]

    def open(self):
        """Opens the file, and writes the kept bytes. If it cannot be created, memory is used, with a lower cap."""
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
            # A full disk must not stop the user's code: the bytes that do not fit are dropped.
            self.kept -= len(view)
            self.drop(bytes(view))

    def end(self):
        """Returns the summary.

        With a file, long output and output that is not UTF-8 stay in the file, and the summary has no `text`. Without a file,
        output that is not UTF-8 is in `data`. `last` has the last dropped bytes. Both are in base64.
        """
        self.flush()
        text = self.text()
        if text is None and self.file is None:
            self.open()
        found = {"bytes": self.kept + self.dropped}
        if text is not None:
            found["text"] = text
        elif self.file is None:
            found["data"] = _base64(self.head)
        if self.dropped:
            found["last"] = _base64(self.tail)
        if self.file is not None:
            os.close(self.file)
            if text is not None:
                with contextlib.suppress(OSError):
                    os.unlink(self.path)
        return found

    def text(self):
        if self.file is not None and self.kept > MEMORY_BYTES:
            return None
        try:
            return self.head.decode("utf-8")
        except UnicodeDecodeError:
            return None
