"""Our prelude for Python kernels, the same in the image (on IPython) and on the local platform (on its stand-in).

The executor is the program that the SDK starts as a kernel. It is left as it is: every cell that we send it is one call,
`__sandbox_mcp__(spec)`, which runs the user's code and prints one JSON document into the executor's captured stdout. `spec`
is JSON: {run, mark, files, cap_bytes, tail_bytes, code, variables?: {version, entries: [{name, value, version}]}}; the document is
{sandbox_mcp_run: 1, run, spilled, serves?, stdout: {text?, bytes, dropped, tail?}, stderr: {...}, results: [{text?, png?, ...}],
error: {name, message, traceback} | null, exit: number | null}. It is pure ASCII, because the executor's reader
decodes each chunk of its pipe separately, which may end in the middle of a character.
"""

import ast
import builtins
import contextlib
import functools
import inspect
import io
import json
import linecache
import os
import platform
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings

from IPython import get_ipython

from . import plots, preload, present, streams
from .loop import Loop

FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
KEPT_SOURCES = 500
VALUE = "__sandbox_mcp_value__"
MARK = "SANDBOX_MCP_RUN"
RLIMIT_LOCKS = 10


class Kernel:
    """One kernel: its shell, its output, its count of cells."""

    def __init__(self, shell):
        self.shell = shell
        self.count = 0
        # The version of the sandbox's variables that this process has.
        self.variables = 0
        self.loop = Loop()
        self.pid = os.getpid()
        channel = streams.take_protocol()
        self.output = streams.Output()
        streams.hand_protocol(self.output, *channel)
        self.frames = {
            self.step.__func__.__code__: "user",
            Loop.run.__code__: "user",
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
        _mark(spec["run"], spec["mark"])
        if "variables" in spec:
            # The user's code may have put anything in the place of os.environ.
            with contextlib.suppress(Exception):
                self.take_variables(**spec["variables"])
        capture = sys.stdout
        saved = sys.displayhook, self.shell.display_pub
        results = present.Results(self.shell)
        self.results = results
        error = None
        self.starts = self.listens = False
        self.output.begin(spec["files"], spec["cap_bytes"], spec["tail_bytes"])
        try:
            self.output.stand_in()
            self.output.claim(capture)
            sys.displayhook = self.display
            self.shell.display_pub = results
            _, error = present.attempt(self.cell, spec["code"])
            _, second = present.attempt(results.open_figures)
            error = error or second
            if self.output.forked:
                self.end_child(error)
        finally:
            sys.displayhook, self.shell.display_pub = saved
            self.output.stand_in()
        document = {"sandbox_mcp_run": 1, "run": spec["run"], **self.output.end(), "results": results.finish()}
        if self.listens:
            document["serves"] = "itself"
        elif self.starts and _has_children():
            document["serves"] = "child"
        document["error"], document["exit"] = None, None
        if isinstance(error, SystemExit):
            document["exit"] = _exit_code(error)
            if document["exit"] != 0:
                document["error"] = {"name": "SystemExit", "message": str(error), "traceback": []}
        elif error is not None:
            document["error"] = present.describe(error)
        io.StringIO.write(capture, _dump(document))

    def take_variables(self, version, entries):
        for entry in entries:
            if entry["version"] <= self.variables:
                continue
            if entry["value"] is None:
                os.environ.pop(entry["name"], None)
            else:
                os.environ[entry["name"]] = entry["value"]
            if entry["name"] == "TZ":
                time.tzset()
        self.variables = version

    def cell(self, source):
        self.count += 1
        name = f"<cell {self.count}>"
        body, last, source = self.compile(source, name)
        self.loop.settle()
        if body is not None:
            self.step(body)
        value = self.step(last) if last is not None else self.shell.user_ns.pop(VALUE, None)
        if not source.rstrip().endswith(";"):
            self.display(value)

    def compile(self, source, name):
        try:
            tree = self.parse(source, name)
        except SyntaxError:
            # Magics and shell lines are no Python, so that only text which does not parse can have them.
            plain = self.shell.transform_cell(source)
            if plain.strip() == source.strip():
                raise
            source = plain
            tree = self.parse(source, name)
        for transformer in self.shell.ast_transformers:
            tree = ast.fix_missing_locations(transformer.visit(tree))
        if not tree.body or not isinstance(tree.body[-1], ast.Expr):
            return (compile(tree, name, "exec", FLAGS, True) if tree.body else None), None, source
        whole, end = tree.body[:], tree.body.pop()
        last = compile(ast.Expression(end.value), name, "eval", FLAGS, True)
        body = compile(tree, name, "exec", FLAGS, True) if tree.body else None
        if body is not None and (last.co_flags | body.co_flags) & inspect.CO_COROUTINE:
            # The whole cell is one coroutine, so that statements before the last expression can make tasks on the loop.
            kept = ast.Assign([ast.Name(VALUE, ast.Store())], end.value)
            tree.body = [*whole[:-1], ast.fix_missing_locations(ast.copy_location(kept, end))]
            return compile(tree, name, "exec", FLAGS, True), None, source
        return body, last, source

    def parse(self, source, name):
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        linecache.cache.pop(f"<cell {self.count - KEPT_SOURCES}>", None)
        return compile(source, name, "exec", FLAGS | ast.PyCF_ONLY_AST, True)

    def step(self, code):
        """Runs the user's code. An interrupt that arrives in this frame or below is raised in that code."""
        value = eval(code, self.shell.user_ns)
        return self.loop.run(value) if code.co_flags & inspect.CO_COROUTINE else value

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
        """Raises KeyboardInterrupt in the user's code, after a write that is under way, and never in our own code."""
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
        preload.load()
        if "" not in sys.path[:1]:
            sys.path.insert(0, "")
        # Code that starts another Python (multiprocessing) reads it.
        self.shell.user_ns.setdefault("__spec__", None)
        # Python 3.12 warns of every fork in a process with threads. Our thread only reads pipes and is safe to lose.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        signal.signal(signal.SIGINT, self.on_interrupt)
        os.system = _system
        # IPython's default gives each command a terminal, 100 ms and carriage returns.
        self.shell.system = self.shell.system_raw
        wait = os.waitpid

        def waitpid(pid, options):
            """Reads what a child has printed before Python can print what follows its end."""
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
        self.watch(subprocess.Popen, "_execute_child", "starts")
        self.watch(socket.socket, "listen", "listens")
        for name in ("exit", "quit"):
            self.shell.user_ns[name] = _leave
            setattr(builtins, name, _leave)
        threading.excepthook = self.on_thread_error
        plots.on_show(self.show)
        self.formatwarning = warnings.formatwarning
        warnings.formatwarning = self.on_warning
        png = self.shell.display_formatter.formatters["image/png"]
        png.for_type_by_name("matplotlib.figure", "Figure", lambda figure: self.results.figure(figure))

    def watch(self, owner, name, what):
        """Notes when the code starts a process or listens: its ports are looked for then."""
        real = getattr(owner, name)

        @functools.wraps(real)
        def watched(*args, **kwargs):
            setattr(self, what, True)
            return real(*args, **kwargs)

        setattr(owner, name, watched)

    def show(self):
        """Shows the open figures in the run under way. Returns whether there is one: not in a forked child or between runs."""
        if self.output.forked or not self.output.active:
            return False
        self.results.open_figures()
        return True

    def on_warning(self, message, category, filename, lineno, line=None):
        """Shows a warning about a line of ours at the line of the cell that called it."""
        if present.is_machinery(filename):
            filename, lineno, line = f"<cell {self.count}>", self.line(), None
        return self.formatwarning(message, category, filename, lineno, line)

    def line(self):
        """The line of the cell that runs, or the cell's last line once it has run."""
        name = f"<cell {self.count}>"
        frame = sys._getframe()
        while frame is not None:
            if frame.f_code.co_filename == name:
                return frame.f_lineno
            frame = frame.f_back
        return len(linecache.getlines(name))

    def on_thread_error(self, arguments):
        if arguments.exc_type is SystemExit:
            return
        name = arguments.thread.name if arguments.thread else "?"
        lines = "\n".join(present.describe(arguments.exc_value)["traceback"])
        self.output.err.write(f"Exception in thread {name}:\n{lines}\n")


def _mark(run, mark):
    """Marks this process, so that sandboxd finds what the code starts: every child inherits the mark.

    The mark is the limit of file locks, which Linux keeps and does not apply.
    """
    os.environ[MARK] = run
    try:
        resource.setrlimit(RLIMIT_LOCKS, (int(mark), resource.getrlimit(RLIMIT_LOCKS)[1]))
    except (OSError, ValueError):
        # Where the limit cannot be set, sandboxd looks for the variable.
        pass


def _has_children():
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _dump(document):
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
    """The process's start in clock ticks since boot, which tells it from a later process with the same pid."""
    with open("/proc/self/stat") as file:
        return int(file.read().rpartition(")")[2].split()[19])


def start():
    """Installs the prelude in this process, and prints which process it is. A second call only prints."""
    if not hasattr(builtins, "__sandbox_mcp__"):
        Kernel(get_ipython()).install()
    hello = {"sandbox_mcp_kernel": 1, "pid": os.getpid(), "started": _started(), "language": "python"}
    print(json.dumps({**hello, "version": platform.python_version()}))
