"""Finds modules that a sandbox has, but that are not on the kernel's sys.path."""

import importlib
import importlib.util
import site
import sys

from .own import contextlib, os, time

# A search of all files could take minutes.
SEARCH_DIRECTORIES = 1000
SEARCH_DEPTH = 5


class PathFiles:
    """The last finder on sys.meta_path. Reads the path files (.pth) that were written after Python's start, for example by pip."""

    def __init__(self, started):
        """@param started when the process started, in clock ticks since boot"""
        boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        self.started = boot + started / os.sysconf("SC_CLK_TCK")
        # The time of the last change of each file that this object has read.
        self.read = {}

    def find_spec(self, name, path=None, target=None):
        if path is not None or not any([self.read_new(directory) for directory in _package_directories()]):
            return None
        importlib.invalidate_caches()
        return importlib.util.find_spec(name)

    def read_new(self, directory):
        """Returns whether the directory has new path files."""
        found = False
        with contextlib.suppress(OSError):
            for entry in os.scandir(directory):
                if not entry.name.endswith(".pth"):
                    continue
                changed = entry.stat().st_ctime
                if changed > self.read.get(entry.path, self.started):
                    self.read[entry.path] = changed
                    site.addpackage(directory, entry.name, None)
                    found = True
        return found


def _package_directories():
    return [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]


def search(name):
    """The path of a module or package below the current directory, /workspace or the home directory; None if there is none."""
    tops = dict.fromkeys([os.getcwd(), "/workspace", os.path.expanduser("~")])
    return next(filter(None, (_search_below(top, name) for top in tops)), None)


def _search_below(top, name):
    for count, (directory, names, files) in enumerate(os.walk(top)):
        if f"{name}.py" in files:
            return os.path.join(directory, f"{name}.py")
        if name in names and any(file.endswith(".py") for file in os.listdir(os.path.join(directory, name))):
            return os.path.join(directory, name)
        is_deep = directory.count(os.sep) - top.count(os.sep) >= SEARCH_DEPTH
        names[:] = [] if is_deep else [n for n in names if not n.startswith(".") and n != "node_modules"]
        if count >= SEARCH_DIRECTORIES:
            return None
    return None


def install(started):
    sys.meta_path.append(PathFiles(started))
