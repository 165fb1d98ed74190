"""A small stand-in for IPython: what the image's executor, our prelude and common user code ask of it.

It goes before any installed IPython in the local kernel, so that a kernel behaves the same on every machine.
"""

from .core.getipython import get_ipython
from .core.display import display

version_info = (8, 24, 0)
__version__ = "8.24.0"

__all__ = ["get_ipython", "display", "version_info", "__version__"]
