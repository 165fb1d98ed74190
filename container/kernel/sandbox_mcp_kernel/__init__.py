"""Our prelude for Python kernels, the same in the image (on IPython) and on the local platform (on its stand-in).

The executor is left as it is: every cell it gets from us is one call, `__sandbox_mcp__(spec)`, and everything about
the run comes back as the one JSON document that this call prints into the executor's captured stdout. `spec` is JSON:
{run, files, cap_bytes, code}; the document is
{sandbox_mcp_run: 1, run, spilled, stdout: {text?, bytes, dropped, tail?}, stderr: {...}, results: [{text?, png?, ...}],
error: {name, message, traceback} | null, exit: number | null}. It is pure ASCII, because the executor's reader decodes
each chunk of its pipe by itself.
"""

import ast
import asyncio
import builtins
import inspect
import json
import linecache
import os
import platform
import signal
import subprocess
import sys
import threading
import warnings

from IPython import get_ipython

from . import files, present, streams

FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
KEPT_SOURCES = 500


class Kernel:
    """One kernel: its shell, its output, its count of cells."""

    def __init__(self, shell):
        self.shell = shell
        self.count = 0
        self.loop = None
        self.pid = os.getpid()
        streams.move_protocol()
        self.output = streams.Output()
        self.no_input = files.NoInput()
        self.frames = {
            self.step.__func__.__code__: "user",
            present.call_user.__code__: "user",
            _system.__code__: "user",
            streams.Output.write.__code__: "wait",
            self.run.__func__.__code__: "late",
        }
        self.real_exit = os._exit

    # --- one run -----------------------------------------------------------------------------------------------

    def run(self, text):
        spec = json.loads(text)
        signal.signal(signal.SIGINT, self.on_interrupt)
        saved = sys.stdout, sys.stderr, sys.stdin, sys.displayhook, self.shell.display_pub
        results = present.Results(self.shell)
        self.results = results
        error = None
        self.output.begin(spec["files"], spec["cap_bytes"])
        try:
            sys.stdout, sys.stderr, sys.stdin = self.output.out, self.output.err, self.no_input
            sys.displayhook = self.display
            self.shell.display_pub = results
            _, error = present.attempt(self.cell, spec["code"])
            _, second = present.attempt(results.open_figures)
            error = error or second
            if self.output.forked:
                self.end_child(error)
        finally:
            sys.stdout, sys.stderr, sys.stdin, sys.displayhook, self.shell.display_pub = saved
        document = {"sandbox_mcp_run": 1, "run": spec["run"], **self.output.end(), "results": results.finish()}
        document["error"], document["exit"] = None, None
        if isinstance(error, SystemExit):
            document["exit"] = _exit_code(error)
            if document["exit"] != 0:
                document["error"] = {"name": "SystemExit", "message": str(error), "traceback": []}
        elif error is not None:
            document["error"] = present.describe(error)
        sys.stdout.write(_dump(document))

    def cell(self, source):
        self.count += 1
        name = f"<cell {self.count}>"
        body, last, source = self.compile(source, name)
        if body is not None:
            self.step(body)
        if last is not None:
            value = self.step(last)
            if not source.rstrip().endswith(";"):
                self.display(value)

    def compile(self, source, name):
        try:
            tree = self.parse(source, name)
        except SyntaxError:
            # Only text that is not Python can hold magics and shell lines.
            plain = self.shell.transform_cell(source)
            if plain.strip() == source.strip():
                raise
            source = plain
            tree = self.parse(source, name)
        for transformer in self.shell.ast_transformers:
            tree = ast.fix_missing_locations(transformer.visit(tree))
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            last = compile(ast.Expression(tree.body.pop().value), name, "eval", FLAGS, True)
        return (compile(tree, name, "exec", FLAGS, True) if tree.body else None), last, source

    def parse(self, source, name):
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        linecache.cache.pop(f"<cell {self.count - KEPT_SOURCES}>", None)
        return compile(source, name, "exec", FLAGS | ast.PyCF_ONLY_AST, True)

    def step(self, code):
        """Runs the user's code. An interrupt that arrives below this frame is theirs."""
        value = eval(code, self.shell.user_ns)
        if not code.co_flags & inspect.CO_COROUTINE:
            return value
        if self.loop is None or self.loop.is_closed():
            self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        task = self.loop.create_task(value)
        try:
            return self.loop.run_until_complete(task)
        except (KeyboardInterrupt, SystemExit):
            task.cancel()
            self.loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
            raise

    def display(self, value):
        if value is not None:
            self.shell.user_ns["_"] = value
            self.results.value(value)

    def end_child(self, error):
        """A forked child that reached the end of its cell must not go on as a second kernel."""
        if error is not None and not isinstance(error, SystemExit):
            self.output.err.write("\n".join(present.describe(error)["traceback"]) + "\n")
        self.real_exit(_exit_code(error) if isinstance(error, SystemExit) else int(error is not None))

    # --- signals and exits ---------------------------------------------------------------------------------------

    def on_interrupt(self, _signal, frame):
        """KeyboardInterrupt in the user's code; after a write that is under way; never in our own code."""
        if self.output.forked:
            raise KeyboardInterrupt
        if not self.output.active:
            return
        while frame is not None:
            kind = self.frames.get(frame.f_code)
            if kind == "user":
                raise KeyboardInterrupt
            if kind == "wait":
                self.output.interrupted = True
            if kind:
                return
            frame = frame.f_back

    def install(self):
        builtins.__sandbox_mcp__ = self.run
        # Python 3.12 warns of every fork beside a thread; ours only reads pipes.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        signal.signal(signal.SIGINT, self.on_interrupt)
        os.system = _system
        # IPython's default gives each command a terminal, 100 ms and carriage returns.
        self.shell.system = self.shell.system_raw
        wait = os.waitpid

        def waitpid(pid, options):
            """What a child printed comes before what Python prints after it ended."""
            found = wait(pid, options)
            if not self.output.forked:
                with self.output.lock:
                    self.output.drain()
            return found

        os.waitpid = waitpid

        def leave(status):
            if os.getpid() == self.pid:
                self.output.flush_now()
            self.real_exit(status)

        os._exit = leave
        for name in ("exit", "quit"):
            self.shell.user_ns[name] = _leave
            setattr(builtins, name, _leave)
        threading.excepthook = self.on_thread_error
        png = self.shell.display_formatter.formatters["image/png"]
        png.for_type_by_name("matplotlib.figure", "Figure", lambda figure: self.results.figure(figure))

    def on_thread_error(self, arguments):
        if arguments.exc_type is SystemExit:
            return
        name = arguments.thread.name if arguments.thread else "?"
        lines = "\n".join(present.describe(arguments.exc_value)["traceback"])
        self.output.err.write(f"Exception in thread {name}:\n{lines}\n")


def _dump(document):
    try:
        return json.dumps(document, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        for item in document["results"]:
            if "json" in item:
                item.setdefault("text", present.plain(item.pop("json")))
        return json.dumps(document, allow_nan=False)


def _exit_code(error):
    code = error.code
    return 0 if code is None else code if isinstance(code, int) else 1


def _leave(code=None):
    raise SystemExit(code)


def _system(command):
    """os.system that an interrupt can end; the original ignores SIGINT while it waits."""
    status = subprocess.call(command, shell=True)
    return -status if status < 0 else status << 8


def _started():
    """The process's start time in clock ticks: with it a pid names one process for ever."""
    with open("/proc/self/stat") as file:
        return int(file.read().rpartition(")")[2].split()[19])


def start():
    """Makes this process a kernel of ours and says which process it is. A second call changes nothing."""
    if not hasattr(builtins, "__sandbox_mcp__"):
        Kernel(get_ipython()).install()
    hello = {"sandbox_mcp_kernel": 1, "pid": os.getpid(), "started": _started(), "language": "python"}
    print(json.dumps({**hello, "version": platform.python_version()}))
