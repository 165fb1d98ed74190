"""Replacements for sys.stdout, sys.stderr and sys.stdin in a kernel."""

import io


class Buffer(io.BufferedIOBase):
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
        self.stream.output.flush_now()

    def close(self):
        pass


class Stream(io.TextIOBase):
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
        self.output.flush_now()

    def close(self):
        pass

    def reconfigure(self, **_options):
        pass


class NoInput(io.TextIOBase):
    """An empty sys.stdin, because nobody can type."""

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
