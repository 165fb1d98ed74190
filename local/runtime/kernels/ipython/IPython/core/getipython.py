"""`get_ipython`, in a module of its own as in IPython."""


def get_ipython():
    """The kernel's shell, or None before it exists."""
    from .interactiveshell import InteractiveShell

    return InteractiveShell._instance
