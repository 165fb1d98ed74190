"""Copies of modules. They keep their functions if user code replaces these, for example with mocks of `time` in tests."""

import base64
import contextlib
import importlib
import io
import os
import resource
import select
import signal
import sys
import threading
import time
import traceback
from types import SimpleNamespace


def _copy(module):
    return SimpleNamespace(**vars(module))


base64, contextlib, io, os, resource = map(_copy, (base64, contextlib, io, os, resource))
select, signal, threading, time, traceback = map(_copy, (select, signal, threading, time, traceback))


def _load_again(name):
    """Loads a package again for this prelude only. Its functions look others up in their modules, so a plain copy is not enough."""
    is_part = lambda other: other.partition(".")[0] == name
    shared = {other: sys.modules.pop(other) for other in list(sys.modules) if is_part(other)}
    try:
        return importlib.import_module(name)
    finally:
        for other in list(filter(is_part, sys.modules)):
            del sys.modules[other]
        sys.modules.update(shared)


json = _load_again("json")
