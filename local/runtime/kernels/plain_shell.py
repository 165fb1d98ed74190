"""A shell for a Python without IPython: no magics and no shell lines.

It has the parts of IPython's shell that `python-kernel.py` and our prelude (`container/kernel`) use.
"""

import ast
import base64
import builtins
import code
import re
import sys
import types

METHODS = {
    "text/html": "_repr_html_",
    "text/markdown": "_repr_markdown_",
    "text/latex": "_repr_latex_",
    "image/svg+xml": "_repr_svg_",
    "image/png": "_repr_png_",
    "image/jpeg": "_repr_jpeg_",
    "application/json": "_repr_json_",
}
MAGIC = re.compile(r"^\s*(?:\w[\w, ]*=\s*)?[%!]", re.MULTILINE)
NEEDS_IPYTHON = (
    "magics (%) and shell lines (!) need IPython, which this Python does not have. Use run_command for shell commands. "
    "Or run `pip install ipython` with run_command, then use a new context."
)


class Formatter:
    def format(self, value, include=None, exclude=None):
        """Returns an object's representations by MIME type, and empty metadata."""
        data = {"text/plain": repr(value)}
        if not isinstance(value, type):
            found = self.call(value, "_repr_mimebundle_", include=include, exclude=exclude)
            data.update((found[0] if isinstance(found, tuple) else found) or {})
            data.update((mime, self.call(value, name)) for mime, name in METHODS.items() if mime not in data)
        wanted = (set(data) if include is None else set(include)) - set(exclude or ())
        return {mime: self.text(data[mime]) for mime in data if mime in wanted and data[mime] is not None}, {}

    @staticmethod
    def call(value, name, **options):
        method = getattr(type(value), name, None)
        try:
            found = method(value, **options) if callable(method) else None
        except Exception:
            # The object has no such representation.
            return None
        return found[0] if isinstance(found, tuple) and name in METHODS.values() else found

    @staticmethod
    def text(value):
        return base64.b64encode(value).decode("ascii") if isinstance(value, (bytes, bytearray)) else value


class Publisher:
    def publish(self, data, metadata=None, **_ignored):
        print(data.get("text/plain", ""))


class InteractiveShell(code.InteractiveInterpreter):
    def __init__(self):
        module = types.ModuleType("__main__")
        module.__builtins__ = builtins
        sys.modules["__main__"] = module
        super().__init__(module.__dict__)
        self.user_ns = self.locals
        self.display_formatter, self.display_pub = Formatter(), Publisher()
        self.ast_transformers = []
        builtins.get_ipython = lambda: self
        builtins.display = self.display

    @classmethod
    def instance(cls):
        return cls()

    def display(self, *values, **options):
        for value in values:
            data, metadata = (value, {}) if options.get("raw") else self.display_formatter.format(value)
            self.display_pub.publish(data, metadata)

    def transform_cell(self, source):
        """Returns the source unchanged. @throws SyntaxError if it needs IPython"""
        if MAGIC.search(source):
            try:
                compile(source, "<cell>", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, True)
            except SyntaxError:
                raise SyntaxError(NEEDS_IPYTHON) from None
        return source

    def run_cell(self, source, **_options):
        self.error = None
        self.runsource(source, symbol="exec")
        return types.SimpleNamespace(error_in_exec=self.error)

    def showtraceback(self):
        self.error = sys.exc_info()[1]

    def showsyntaxerror(self, *_arguments, **_options):
        self.error = sys.exc_info()[1]
