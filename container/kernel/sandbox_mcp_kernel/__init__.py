"""Our prelude for Python kernels, the same in the image and on the local platform. It uses IPython's shell, or a substitute for it.

The executor is the program that the SDK starts as a kernel. We do not change it: each cell that we send is one call,
`__sandbox_mcp__(spec)`, which runs the user's code and prints one JSON document into the executor's captured stdout. `spec`
is JSON: {run, mark, files, cap_bytes, tail_bytes, code, variables?: {version, entries: [{name, value, version}]}}; the document is
{sandbox_mcp_run: 1, run, spilled, serves?, stdout: {text?, data?, bytes, last?}, stderr: {...}, results: [{text?, png?, ...}],
error: {name, message, traceback, local?} | null, exit: number | null}. `local` is the path of a file that may be the module
that an import did not find. A large image is not in the document: the output has its form as
`image_file` ("png"), and the image is in the file `/workspace/.outputs/<run>-<number of the output>.<form>`, where <run> is the part
of the run's id after the sandbox's name. The document is pure ASCII, because the executor decodes each
chunk of its pipe separately, and a chunk may end in the middle of a character.
"""

import __future__
import ast
import builtins
import faulthandler
import functools
import inspect
import linecache
import os as shared_os
import platform
import socket
import subprocess
import sys
import threading
import warnings

from . import libraries, local_modules, preload, present, streams, terminal
from .loop import Loop
from .notebook import Notebook
from .own import contextlib, io, json, os, resource, signal, time

FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
KEPT_SOURCES = 500
VALUE = "__sandbox_mcp_value__"
MARK = "SANDBOX_MCP_RUN"
RLIMIT_LOCKS = 10
# The largest number that JavaScript reads exactly.
MAX_EXIT_CODE = 2**53 - 1


class Kernel:
    def __init__(self, shell):
        self.shell = shell
        self.notebook = Notebook(shell, _leave)
        self.count = 0
        # `from __future__` in a cell also applies to later cells.
        self.flags = FLAGS
        self.variables = 0
        self.loop = Loop()
        self.pid = os.getpid()
        channel = streams.take_protocol()
        self.output = streams.Output()
        streams.give_protocol(self.output, *channel)
        # What an interrupt does while one of these functions runs. "user": the interrupt raises KeyboardInterrupt at once.
        # "wait": the function raises KeyboardInterrupt at its end. "late": nothing happens, because the user's code is not
        # running. See `on_interrupt`.
        self.frames = {
            self.step.__func__.__code__: "user",
            Loop.run.__code__: "user",
            present.call_user.__code__: "user",
            _system.__code__: "user",
            streams.Output.write.__code__: "wait",
            self.run.__func__.__code__: "late",
        }
        self.real_exit = os._exit

    # One run

    def run(self, text):
        spec = json.loads(text)
        signal.signal(signal.SIGINT, self.on_interrupt)
        _mark(spec["run"], spec["mark"])
        if "variables" in spec:
            # The user's code may have replaced os.environ.
            with contextlib.suppress(Exception):
                self.set_variables(**spec["variables"])
        capture = sys.stdout
        saved = sys.displayhook, self.shell.display_pub
        results = present.Results(self.notebook, self.output)
        self.results = results
        error = None
        self.has_started = self.has_listened = False
        self.output.begin(spec["files"], spec["cap_bytes"], spec["tail_bytes"])
        try:
            # Threads print to the capture until it is empty, so that no later text comes before the captured text.
            self.output.empty_capture(capture)
            self.output.install_streams()
            sys.displayhook = self.display
            self.shell.display_pub = results
            _, error = present.attempt(self.cell, spec["code"])
            _, second = present.attempt(results.open_figures)
            error = error or second
            if self.output.is_forked:
                self.end_child(error)
        finally:
            sys.displayhook, self.shell.display_pub = saved
            self.output.install_streams()
        document = {"sandbox_mcp_run": 1, "run": spec["run"], **self.output.end(), "results": results.finish(spec["run"])}
        if self.has_listened:
            document["serves"] = "itself"
        elif self.has_started and _has_children():
            document["serves"] = "child"
        document["error"], document["exit"] = None, None
        if error is not None and not isinstance(error, SystemExit):
            # For %tb and pdb.pm. Python 3.12 and later read `last_exc`.
            sys.last_type, sys.last_value, sys.last_traceback = type(error), error, error.__traceback__
            sys.last_exc = error
        if isinstance(error, SystemExit):
            document["exit"] = _exit_code(error)
            if document["exit"] != 0:
                document["error"] = {**present.describe(error), "name": "SystemExit", "traceback": []}
        elif error is not None:
            document["error"] = present.describe(error)
            if isinstance(error, ModuleNotFoundError):
                document["error"]["local"], _ = present.attempt(local_modules.search, error.name)
        io.StringIO.write(capture, _dump(document))

    def set_variables(self, version, entries):
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
        plain, tree = source, None
        try:
            plain, tree = self.parse(source, name)
        finally:
            self.notebook.record(self.count, source, plain)
        body, last = self.compile(tree, name)
        self.loop.restore()
        if body is not None:
            self.step(body)
        value = self.step(last) if last is not None else self.shell.user_ns.pop(VALUE, None)
        if not plain.rstrip().endswith(";"):
            self.display(value)

    def parse(self, source, name):
        """Returns the cell as Python, with magics and shell lines as calls, and its syntax tree."""
        plain = self.shell.transform_cell(source) if self.notebook.is_automagic(source) else source
        plain = source if plain.strip() == source.strip() else plain
        try:
            return plain, self.tree(plain, name)
        except SyntaxError as error:
            # Only invalid Python can contain magics and shell lines.
            failed = error
        transformed = self.shell.transform_cell(source)
        if transformed.strip() in (source.strip(), plain.strip()):
            raise failed
        # Outside `except`, because Python would otherwise show the first error too, which is only about the magic's syntax.
        return transformed, self.tree(transformed, name)

    def tree(self, source, name):
        # linecache's lines end with a line feed.
        lines = (source if source.endswith("\n") else f"{source}\n").splitlines(keepends=True)
        linecache.cache[name] = (len(source), None, lines, name)
        linecache.cache.pop(f"<cell {self.count - KEPT_SOURCES}>", None)
        return compile(source, name, "exec", self.flags | ast.PyCF_ONLY_AST, True)

    def compile(self, tree, name):
        """Compiles a cell's statements and its last expression; None for a missing part."""
        for transformer in self.shell.ast_transformers:
            tree = ast.fix_missing_locations(transformer.visit(tree))
        if not tree.body or not isinstance(tree.body[-1], ast.Expr):
            return (self.statements(tree, name) if tree.body else None), None
        whole, end = tree.body[:], tree.body.pop()
        body = self.statements(tree, name) if tree.body else None
        last = compile(ast.Expression(end.value), name, "eval", self.flags, True)
        if body is not None and (last.co_flags | body.co_flags) & inspect.CO_COROUTINE:
            # The cell is one coroutine, so that its statements can create tasks for its last expression.
            kept = ast.Assign([ast.Name(VALUE, ast.Store())], end.value)
            tree.body = [*whole[:-1], ast.fix_missing_locations(ast.copy_location(kept, end))]
            return self.statements(tree, name), None
        return body, last

    def statements(self, tree, name):
        code = compile(tree, name, "exec", self.flags, True)
        for feature in __future__.all_feature_names:
            self.flags |= code.co_flags & getattr(__future__, feature).compiler_flag
        return code

    def step(self, code):
        """Runs the user's code. An interrupt raises KeyboardInterrupt in it."""
        value = eval(code, self.shell.user_ns)
        return self.loop.run(value) if code.co_flags & inspect.CO_COROUTINE else value

    def display(self, value):
        if value is not None:
            self.notebook.keep(value)
            self.results.value(value)

    def end_child(self, error):
        """Ends a child that the cell has forked. It must not continue as a second kernel after the cell."""
        if error is not None and not isinstance(error, SystemExit):
            self.output.err.write("\n".join(present.describe(error)["traceback"]) + "\n")
        # The system keeps these bits of a status. Without the mask, os._exit refuses a large one.
        self.real_exit(_exit_code(error) & 0xFF if isinstance(error, SystemExit) else int(error is not None))

    # Signals and exits

    def on_interrupt(self, _signal, frame):
        """Raises KeyboardInterrupt in the user's code, but not during a write, and never in our own code."""
        if self.output.is_forked:
            raise KeyboardInterrupt
        if not self.output.is_active:
            return
        while frame is not None:
            kind = self.frames.get(frame.f_code)
            if kind == "user":
                raise KeyboardInterrupt
            if kind == "wait":
                self.output.is_interrupted = True
            if kind:
                return
            frame = frame.f_back

    def install(self):
        builtins.__sandbox_mcp__ = self.run
        preload.load()
        if "" not in sys.path[:1]:
            sys.path.insert(0, "")
        # multiprocessing reads `__spec__` when it starts another Python.
        self.shell.user_ns.setdefault("__spec__", None)
        # Python 3.12 warns of every fork in a process with threads. Our thread only reads pipes, so a child without it works.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        signal.signal(signal.SIGINT, self.on_interrupt)
        shared_os.system = _system
        wait = os.waitpid

        def waitpid(pid, options):
            """Reads a child's output before Python prints anything after the child's end."""
            found = wait(pid, options)
            if not self.output.is_forked:
                with self.output.lock:
                    self.output.drain()
            return found

        shared_os.waitpid = waitpid
        end_file = _open_end_file()

        def leave(status):
            if os.getpid() == self.pid:
                self.output.flush_now()
                if end_file is not None:
                    os.write(end_file, f"exit status {status}\n".encode())
            self.real_exit(status)

        shared_os._exit = leave
        self.watch(subprocess.Popen, "_execute_child", "has_started")
        self.watch(socket.socket, "listen", "has_listened")
        builtins.exit = builtins.quit = _leave
        self.notebook.install()
        terminal.install(self.output.no_input)
        threading.excepthook = self.on_thread_error
        libraries.install(self)
        local_modules.install(_started())
        self.formatwarning = warnings.formatwarning
        warnings.formatwarning = self.on_warning
        real = self.shell.display_formatter.format

        @functools.wraps(real)
        def rich(value, *arguments, **options):
            data, metadata = real(value, *arguments, **options)
            return self.results.add_figure(value, data), metadata

        self.shell.display_formatter.format = rich

    def watch(self, owner, name, what):
        """Records calls that start a process or listen on a port, so that sandboxd looks for the run's ports."""
        real = getattr(owner, name)

        @functools.wraps(real)
        def watched(*args, **kwargs):
            setattr(self, what, True)
            return real(*args, **kwargs)

        setattr(owner, name, watched)

    @property
    def is_showing(self):
        return self.output.is_active and not self.output.is_forked

    def show_figures(self):
        if self.is_showing:
            self.results.open_figures()
        return self.is_showing

    def show(self, value, raw=False):
        """@param raw whether the value is data by MIME type"""
        if self.is_showing:
            self.results.add(value) if raw else self.results.value(value)
        return self.is_showing

    def on_warning(self, message, category, filename, lineno, line=None):
        """Makes a warning name the calling line of the cell and not our own line."""
        if present.is_machinery(filename):
            filename, lineno, line = f"<cell {self.count}>", self.line(), None
        return self.formatwarning(message, category, filename, lineno, line)

    def line(self):
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
    """Marks this process for sandboxd. Every child inherits the mark.

    The mark is the value of the limit of file locks. Linux stores this limit, but does not enforce it.
    """
    os.environ[MARK] = run
    try:
        resource.setrlimit(RLIMIT_LOCKS, (int(mark), resource.getrlimit(RLIMIT_LOCKS)[1]))
    except (OSError, ValueError):
        # Where limits cannot be set, sandboxd searches for the variable MARK.
        pass


def _has_children():
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _open_end_file():
    """Opens the file in which sandboxd finds how the kernel ended, and lets faulthandler write to it; None if there is none."""
    path = f"/var/lib/sandbox-mcp/runs/kernel-{os.getpid()}-{_started()}"
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    faulthandler.enable(file, all_threads=False)
    # If a child crashes, this is part of the run's output.
    os.register_at_fork(after_in_child=lambda: faulthandler.enable(2, all_threads=False))
    return file


def _dump(document):
    return json.dumps(document, allow_nan=False)


def _exit_code(error):
    """The argument of exit() as a number. A message is 1, as for Python itself."""
    code, problem = present.attempt(_number_of, error)
    return 1 if problem else code


def _number_of(error):
    if error.code is None:
        return 0
    # int() also converts True, because the server does not accept it as a number.
    return max(-MAX_EXIT_CODE, min(int(error.code), MAX_EXIT_CODE)) if isinstance(error.code, int) else 1


def _leave(code=None):
    raise SystemExit(code)


def _system(command):
    """A replacement of os.system that an interrupt can end: the original ignores SIGINT while it waits."""
    status = subprocess.call(command, shell=True)
    return -status if status < 0 else status << 8


def _started():
    """The process's start in clock ticks since boot. It distinguishes the process from a later one with the same pid."""
    with open("/proc/self/stat") as file:
        return int(file.read().rpartition(")")[2].split()[19])


def start():
    """Installs the prelude in this process, and prints which process it is. A second call only prints."""
    if not hasattr(builtins, "__sandbox_mcp__"):
        # IPython adds get_ipython to the builtins only while it runs a cell, as now.
        Kernel(builtins.get_ipython()).install()
    hello = {"sandbox_mcp_kernel": 1, "pid": os.getpid(), "started": _started(), "language": "python"}
    print(json.dumps({**hello, "version": platform.python_version()}))
