"""The shell of a local kernel: one namespace, cells run in it one after another."""

import ast
import asyncio
import builtins
import inspect
import linecache
import os
import subprocess
import sys
import traceback
import types

from .display import DisplayFormatter, DisplayPublisher, display
from .getipython import get_ipython
from .magics import Magics, UsageError
from .transform import transform_cell


class ExecutionInfo:
    """What a pre_run_cell hook is given."""

    def __init__(self, raw_cell, store_history=False, silent=False):
        self.raw_cell, self.store_history, self.silent = raw_cell, store_history, silent


class ExecutionResult:
    """How a cell ended. A post_run_cell hook may change it; the change counts."""

    def __init__(self, info):
        self.info = info
        self.execution_count = None
        self.error_before_exec = None
        self.error_in_exec = None
        self.result = None

    @property
    def success(self):
        return self.error_before_exec is None and self.error_in_exec is None

    def raise_error(self):
        if not self.success:
            raise self.error_before_exec or self.error_in_exec


class EventManager:
    """Named hooks, each called with or without the argument, as it takes it."""

    def __init__(self, shell):
        self.shell = shell
        self.callbacks = {name: [] for name in ("pre_execute", "pre_run_cell", "post_execute", "post_run_cell")}

    def register(self, event, function):
        if function not in self.callbacks[event]:
            self.callbacks[event].append(function)

    def unregister(self, event, function):
        self.callbacks[event].remove(function)

    def trigger(self, event, *arguments):
        for function in list(self.callbacks[event]):
            try:
                function(*arguments) if inspect.signature(function).parameters else function()
            except Exception:
                print(f"Error in callback {function!r} for {event}:")
                self.shell.showtraceback()


class InteractiveShell:
    """As much of IPython's InteractiveShell as a kernel without a terminal needs."""

    _instance = None

    @classmethod
    def instance(cls):
        if cls._instance is None:
            cls._instance = cls()
        return cls._instance

    @classmethod
    def initialized(cls):
        return cls._instance is not None

    def __init__(self):
        self.user_module = types.ModuleType("__main__")
        self.user_ns = self.user_global_ns = self.user_module.__dict__
        sys.modules["__main__"] = self.user_module
        self.display_formatter = DisplayFormatter()
        self.display_pub = DisplayPublisher()
        self.events = EventManager(self)
        self.input_transformers_cleanup = []
        self.input_transformers_post = []
        self.ast_transformers = []
        self.execution_count = 1
        self.config = {}
        self.colors = "NoColor"
        self.quiet = False
        self.ast_node_interactivity = "last_expr"
        self.hidden = set()
        self.loop = None
        self.magics = Magics(self)
        self.reset()
        builtins.get_ipython = get_ipython
        builtins.display = display

    def reset(self):
        self.user_ns.clear()
        self.user_ns.update(__name__="__main__", __builtins__=builtins, __doc__=None, In=[""], Out={})
        self.hidden = set(self.user_ns)

    def push(self, variables, interactive=True):
        self.user_ns.update(variables)

    def enable_gui(self, gui=None):
        pass

    def enable_matplotlib(self, gui=None):
        return None, None

    def transform_cell(self, source):
        lines = source.splitlines(keepends=True)
        for hook in self.input_transformers_cleanup:
            lines = hook(lines)
        return transform_cell("".join(lines))

    def run_cell(self, raw_cell, store_history=False, silent=False, **_ignored):
        result = ExecutionResult(ExecutionInfo(raw_cell, store_history, silent))
        self.events.trigger("pre_execute")
        self.events.trigger("pre_run_cell", result.info)
        name = f"<cell {self.execution_count}>"
        self.execution_count += 1
        try:
            body, last = self._compile(self.transform_cell(raw_cell), name)
        except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError) as error:
            result.error_before_exec = error
            self.showtraceback()
        else:
            try:
                self._execute(body)
                result.result = self._execute(last)
                if result.result is not None:
                    self.user_ns["_"] = result.result
            except BaseException as error:
                result.error_in_exec = error
                self.showtraceback()
        self.events.trigger("post_execute")
        self.events.trigger("post_run_cell", result)
        return result

    def run_source(self, source):
        """Runs code inside the cell that is running (for magics) and returns its last value."""
        body, last = self._compile(self.transform_cell(source), "<magic>")
        self._execute(body)
        return self._execute(last)

    def _compile(self, source, name):
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        tree = compile(source, name, "exec", flags | ast.PyCF_ONLY_AST, True)
        for transformer in self.ast_transformers:
            tree = transformer.visit(tree)
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr) and not source.rstrip().endswith(";"):
            last = compile(ast.Expression(tree.body.pop().value), name, "eval", flags, True)
        return (compile(tree, name, "exec", flags, True) if tree.body else None), last

    def _execute(self, code):
        if code is None:
            return None
        value = eval(code, self.user_ns)
        if code.co_flags & inspect.CO_COROUTINE:
            if self.loop is None or self.loop.is_closed():
                self.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self.loop)
            task = self.loop.create_task(value)
            try:
                return self.loop.run_until_complete(task)
            except KeyboardInterrupt:
                task.cancel()
                self.loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
                raise
        return value

    def showtraceback(self, exc_tuple=None, **_ignored):
        kind, value, tb = exc_tuple or sys.exc_info()
        own = os.path.dirname(os.path.abspath(__file__))
        while tb is not None and tb.tb_frame.f_code.co_filename.startswith(own):
            tb = tb.tb_next
        self._showtraceback(kind, value, traceback.format_exception(kind, value, tb))

    def _showtraceback(self, kind, value, lines):
        print("".join(lines), end="")

    def run_line_magic(self, name, line, _stack_depth=1):
        return self.magics.run_line(name, self._expand(line))

    def run_cell_magic(self, name, line, cell):
        return self.magics.run_cell(name, self._expand(line), cell)

    def magic(self, text):
        name, _, line = text.lstrip("%").partition(" ")
        return self.run_line_magic(name, line)

    def system(self, command):
        self.run_process(["/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh", "-c", self._expand(command)])

    system_raw = system_piped = system

    def run_process(self, command, text=None):
        """Runs a program, its output to this cell's as it comes; its exit code is left in `_exit_code`."""
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if text is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        try:
            if text is not None:
                child.stdin.write(text)
                child.stdin.close()
            for line in child.stdout:
                sys.stdout.write(line)
        except BaseException:
            child.kill()
            raise
        finally:
            self.user_ns["_exit_code"] = child.wait()

    def getoutput(self, command, split=True, depth=0):
        text = subprocess.run(
            self._expand(command),
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ).stdout
        return text.splitlines() if split else text

    def _expand(self, text):
        """Puts Python values into `{name}` and `$name`; what is not a Python name is left for the shell."""
        import re

        def value(found):
            try:
                return str(eval(found[1] or found[2], self.user_ns))
            except Exception:
                return found[0]

        return re.sub(r"\{([^{}]+)\}|(?<![\\$])\$([A-Za-z_]\w*)", value, text)


__all__ = ["ExecutionInfo", "ExecutionResult", "InteractiveShell", "UsageError"]
