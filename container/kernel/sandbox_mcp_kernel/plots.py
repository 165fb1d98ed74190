"""matplotlib's show() as in a notebook: it shows the open figures at once, and closes them."""

import functools
import importlib.abc
import importlib.util
import sys

PYPLOT = "matplotlib.pyplot"


def on_show(shown):
    """Replaces pyplot.show, now or when pyplot is imported, by `shown`; where that returns False the real show is called."""
    loaded = sys.modules.get(PYPLOT)
    if loaded is not None:
        _replace(loaded, shown)
    sys.meta_path.insert(0, _Finder(shown))


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, shown):
        self.shown = shown
        self.busy = False

    def find_spec(self, name, path=None, target=None):
        if name != PYPLOT or self.busy:
            return None
        self.busy = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.busy = False
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_and_replace(module):
            load(module)
            _replace(module, self.shown)

        spec.loader.exec_module = load_and_replace
        return spec


def _replace(pyplot, shown):
    real = pyplot.show

    @functools.wraps(real)
    def show(*arguments, **options):
        return None if shown() else real(*arguments, **options)

    pyplot.show = show
