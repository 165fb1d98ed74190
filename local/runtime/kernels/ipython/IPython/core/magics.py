"""The magics people use in notebooks; any other is a clear error."""

import os
import shlex
import subprocess
import sys
import time


class UsageError(Exception):
    """A magic that does not exist or was called wrongly."""


class Magics:
    """Line and cell magics of one shell."""

    def __init__(self, shell):
        self.shell = shell
        self.line = {
            "pip": lambda text: self._install([sys.executable, "-m", "pip"], text),
            "conda": lambda text: self.shell.system("conda " + text),
            "cd": self._cd,
            "pwd": lambda _text: os.getcwd(),
            "ls": lambda text: self.shell.system("ls " + text),
            "cat": lambda text: self.shell.system("cat " + text),
            "env": self._env,
            "set_env": self._env,
            "time": self._time,
            "timeit": self._timeit,
            "who": lambda _text: print("   ".join(self._names())),
            "whos": lambda _text: print("\n".join(f"{n}: {type(self.shell.user_ns[n]).__name__}" for n in self._names())),
            "who_ls": lambda _text: self._names(),
            "reset": lambda _text: self.shell.reset(),
            "run": self._run,
            "pinfo": self._info,
            "matplotlib": lambda _text: None,
            "config": lambda _text: None,
            "load_ext": lambda _text: None,
            "autoreload": lambda _text: None,
            "precision": lambda _text: None,
        }
        self.cell = {
            "bash": lambda line, body: self._script("bash", body),
            "sh": lambda line, body: self._script("sh", body),
            "time": lambda line, body: self._time(body),
            "timeit": lambda line, body: self._timeit(body),
            "writefile": self._write,
            "file": self._write,
            "capture": lambda line, body: self._capture(line, body),
            "html": lambda line, body: self._show("HTML", body),
            "markdown": lambda line, body: self._show("Markdown", body),
            "latex": lambda line, body: self._show("Latex", body),
            "svg": lambda line, body: self._show("SVG", body),
        }

    def run_line(self, name, text):
        if name not in self.line:
            raise UsageError(f"Line magic function `%{name}` not found. Available here: {self._list(self.line, '%')}.")
        return self.line[name](text)

    def run_cell(self, name, line, body):
        if name not in self.cell:
            raise UsageError(f"Cell magic `%%{name}` not found. Available here: {self._list(self.cell, '%%')}.")
        return self.cell[name](line, body)

    @staticmethod
    def _list(table, mark):
        return ", ".join(mark + name for name in sorted(table))

    def _names(self):
        return sorted(n for n in self.shell.user_ns if not n.startswith("_") and n not in self.shell.hidden)

    def _install(self, command, text):
        self.shell.system(" ".join(map(shlex.quote, command)) + " " + text)
        print("Note: restart the context to use updated packages that were already imported.")

    def _cd(self, text):
        os.chdir(os.path.expanduser(text.strip().strip("\"'") or "~"))
        print(os.getcwd())

    def _env(self, text):
        if not text:
            return dict(os.environ)
        name, mark, value = text.replace(" ", "=", 1).partition("=") if "=" not in text else text.partition("=")
        if not mark:
            return os.environ.get(name)
        os.environ[name.strip()] = value.strip()
        print(f"env: {name.strip()}={value.strip()}")
        return None

    def _time(self, text):
        wall, cpu = time.perf_counter(), time.process_time()
        result = self.shell.run_source(text)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"CPU times: {_seconds(cpu)}\nWall time: {_seconds(wall)}")
        return result

    def _timeit(self, text):
        import timeit

        loops = repeat = None
        words = text.split(" ")
        while words and words[0][:2] in ("-n", "-r"):
            value = int(words[0][2:] or words.pop(1))
            loops, repeat = (value, repeat) if words[0][1] == "n" else (loops, value)
            words.pop(0)
        timer = timeit.Timer(" ".join(words) or "pass", globals=self.shell.user_ns)
        loops = loops or timer.autorange()[0]
        runs = [t / loops for t in timer.repeat(repeat or 5, loops)]
        mean = sum(runs) / len(runs)
        print(f"{_seconds(mean)} per loop (best {_seconds(min(runs))}, {len(runs)} runs of {loops} loops)")

    def _run(self, text):
        import runpy

        words = shlex.split(text)
        if not words:
            raise UsageError("Usage: %run file.py [arguments]")
        saved, sys.argv = sys.argv, words
        try:
            self.shell.user_ns.update(runpy.run_path(words[0], run_name="__main__"))
        finally:
            sys.argv = saved

    def _info(self, name):
        import inspect

        obj = eval(name, self.shell.user_ns)
        signature = ""
        try:
            signature = str(inspect.signature(obj))
        except (TypeError, ValueError):
            pass
        print(f"{name}{signature}\nType: {type(obj).__name__}\n{inspect.getdoc(obj) or ''}")

    def _script(self, program, body):
        self.shell.run_process([program], body)
        code = self.shell.user_ns["_exit_code"]
        if code:
            raise subprocess.CalledProcessError(code, program)

    def _write(self, line, body):
        append = "-a" in line.split()
        name = " ".join(w for w in line.split() if w != "-a").strip("\"'")
        existed = os.path.exists(name)
        with open(name, "a" if append else "w", encoding="utf-8") as file:
            file.write(body)
        print(f"{'Appending to' if append else 'Overwriting' if existed else 'Writing'} {name}")

    def _capture(self, line, body):
        import contextlib
        import io

        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            self.shell.run_source(body)
        if line.strip().isidentifier():
            self.shell.user_ns[line.strip()] = type("Captured", (), {"stdout": out.getvalue(), "stderr": err.getvalue()})()

    def _show(self, kind, body):
        from . import display

        display.display(getattr(display, kind)(body))


def _seconds(value):
    for unit, factor in (("s", 1), ("ms", 1e3), ("us", 1e6)):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"
