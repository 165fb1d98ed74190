"""Collects what one cell prints and displays."""

import io
import sys
import types

from ..core.interactiveshell import InteractiveShell


class CapturedIO:
    """What there is once the cell has ended."""

    def __init__(self, stdout, stderr, outputs):
        self._stdout, self._stderr, self.outputs = stdout, stderr, outputs

    @property
    def stdout(self):
        return self._stdout.getvalue()

    @property
    def stderr(self):
        return self._stderr.getvalue()


class capture_output:
    """Stands in the place of the shell's publisher while a cell runs."""

    def publish(self, data, metadata=None, **_ignored):
        self.outputs.append(types.SimpleNamespace(data=data, metadata=metadata or {}))

    def clear_output(self, wait=False):
        pass

    def _display(self, value):
        if value is not None:
            self.publish(*self.shell.display_formatter.format(value))

    def __enter__(self):
        self.shell, self.outputs = InteractiveShell.instance(), []
        self.saved = sys.stdout, sys.stderr, self.shell.display_pub, sys.displayhook
        sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
        self.shell.display_pub, sys.displayhook = self, self._display
        return CapturedIO(sys.stdout, sys.stderr, self.outputs)

    def __exit__(self, *_error):
        sys.stdout, sys.stderr, self.shell.display_pub, sys.displayhook = self.saved
