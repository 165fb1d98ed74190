"""Loads modules that the executor, its shell and the kernel's prelude would import only later.

As for a script, the kernel's working directory comes first on sys.path. So `import json` finds the user's json.py there, unless
json is loaded already. Such a file must not break the kernel. So these modules are loaded before the directory is on the path.
"""

import importlib

NAMES = """
    _strptime ast asyncio base64 bisect calendar code codecs codeop concurrent.futures.thread contextlib contextvars copy
    copyreg datetime dis enum fnmatch functools getpass glob hashlib heapq importlib.util inspect io itertools json keyword
    linecache locale logging math numbers opcode operator pickle pkgutil platform posixpath pprint queue random re reprlib
    runpy secrets select selectors shlex shutil signal socket ssl stat string struct subprocess sysconfig tempfile textwrap
    threading time timeit token tokenize traceback types typing unicodedata urllib.parse uuid warnings weakref zlib
"""


def load():
    for name in NAMES.split():
        try:
            importlib.import_module(name)
        except ImportError:
            # Not every Python has all of them.
            pass
