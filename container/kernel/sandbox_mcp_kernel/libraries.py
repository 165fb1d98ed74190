"""Shows pictures and progress bars in a run's results, for libraries that expect a notebook's page or a screen."""

import functools
import importlib.abc
import importlib.util
import sys

from . import fonts

# Plotly's renderers for pictures and data. All other renderers expect a browser.
PLOTLY_DATA = {"png", "jpeg", "jpg", "svg", "pdf", "json"}


def install(kernel):
    """@param kernel has `show_figures()` and `show(data or value)`, which return False if no run can show anything"""
    patches = {
        "matplotlib.pyplot": lambda module: _pyplot(module, kernel),
        "matplotlib.font_manager": fonts.matplotlib,
        "PIL.ImageFont": fonts.pillow,
        "PIL.ImageShow": lambda module: _pillow(module, kernel),
        "plotly.io._renderers": lambda module: _plotly(module, kernel),
        "tqdm.notebook": _tqdm,
    }
    sys.meta_path.insert(0, _Finder(patches))
    for name, patch in patches.items():
        if name in sys.modules:
            patch(sys.modules[name])


class _Finder(importlib.abc.MetaPathFinder):
    """Patches a module when it is imported, with the function that `patches` has for its name."""

    def __init__(self, patches):
        self.patches = patches
        self.busy = set()

    def find_spec(self, name, path=None, target=None):
        patch = self.patches.get(name)
        if patch is None or name in self.busy:
            return None
        self.busy.add(name)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.busy.discard(name)
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_and_patch(module):
            load(module)
            try:
                patch(module)
            except Exception:
                # Another module of that name, or another version, stays unchanged.
                pass

        spec.loader.exec_module = load_and_patch
        return spec


def _pyplot(module, kernel):
    real = module.show

    @functools.wraps(real)
    def show(*arguments, **options):
        return None if kernel.show_figures() else real(*arguments, **options)

    module.show = show


def _pillow(module, kernel):
    class Viewer(module.Viewer):
        def show(self, image, **options):
            return kernel.show(image)

    # Order 0 puts this viewer before the desktop's programs.
    module.register(Viewer(), 0)


def _plotly(module, kernel):
    """Shows a chart as one HTML page. Plotly itself would need nbformat, and would publish its JavaScript, too."""
    real = module.show

    @functools.wraps(real)
    def show(fig, renderer=None, validate=True, **options):
        chosen = renderer or module.renderers.default or ""
        if not PLOTLY_DATA.intersection(chosen.split("+")):
            to_html = sys.modules["plotly.io"].to_html
            page = to_html(fig, include_plotlyjs="cdn", full_html=True, validate=validate)
            if kernel.show({"text/html": page}, raw=True):
                return None
        return real(fig, renderer, validate, **options)

    module.show = show


def _tqdm(module):
    """Replaces the notebook's progress bar, because it is a widget, and only its first state would be shown."""
    from tqdm import std

    module.tqdm = module.tqdm_notebook = std.tqdm
    module.trange = module.tnrange = std.trange
