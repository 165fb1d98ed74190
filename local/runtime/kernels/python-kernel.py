"""The Python kernel of the local platform: one process per context, requests and replies as JSON lines.

It does what the image's executor does, with the same protocol and the same limits: stdout is the protocol's channel,
output is captured in memory and delivered with the reply, SIGINT outside a cell ends the kernel. It uses IPython, as the
executor does. If IPython is missing, it uses `plain_shell.py` beside this file.
"""

import importlib.util
import json
import os
import site
import sys
import traceback
import types
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

PRELUDE = "/opt/sandbox-mcp/kernel"


def has_ipython():
    try:
        return importlib.util.find_spec("IPython.core.interactiveshell") is not None
    except ImportError:
        return False


directory = sys.path.pop(0)  # the directory of this file
os.environ["MPLBACKEND"] = "Agg"

# Without IPython.terminal.embed and jedi, IPython starts in half the time. The replacement of `embed` loads the real one when it is
# called. Without jedi, completions come from live objects.
TERMINAL = "IPython.terminal.embed"
sys.modules[TERMINAL] = types.ModuleType(TERMINAL)
sys.modules[TERMINAL].embed = lambda **options: importlib.import_module(TERMINAL).embed(**options)
sys.modules["jedi"] = None

if has_ipython():
    # If these modules were not imported here, the shell would import them for the first cell.
    import IPython.core.completer
    import IPython.core.magics
    from IPython.core.interactiveshell import InteractiveShell
else:
    sys.modules.pop("IPython", None)  # another module of that name
    sys.path.insert(0, directory)
    sys.dont_write_bytecode, saved = True, sys.dont_write_bytecode  # the directory stays unchanged
    from plain_shell import InteractiveShell

    sys.dont_write_bytecode = saved
    sys.path.remove(directory)

for name in (TERMINAL, "jedi"):
    sys.modules.pop(name, None)

# The first cell loads the prelude. In a prepared kernel, the first cell is faster if the prelude's imports are loaded here.
sys.path.insert(0, PRELUDE)
try:
    import sandbox_mcp_kernel

    sandbox_mcp_kernel.preload.load()
except Exception:
    # The prelude is damaged. The first cell will report that.
    pass
finally:
    sys.path.pop(0)
    # The first cell imports the prelude again.
    for name in [name for name in sys.modules if name.split(".")[0] == "sandbox_mcp_kernel"]:
        del sys.modules[name]


def execute(shell, code):
    """Each cell prints a document and returns nothing, so displays and values are not collected."""
    out, err = StringIO(), StringIO()
    reply = {"stdout": "", "stderr": "", "error": None}
    try:
        with redirect_stdout(out), redirect_stderr(err):
            error = shell.run_cell(code, store_history=False, silent=False).error_in_exec
        reply["stdout"], reply["stderr"] = out.getvalue(), err.getvalue()
        if error is not None:
            frames = "\n".join(traceback.format_tb(error.__traceback__))
            reply["error"] = {"type": type(error).__name__, "message": str(error), "traceback": frames}
    except Exception as error:
        reply["error"] = {
            "type": type(error).__name__,
            "message": str(error),
            "traceback": traceback.format_exc(),
        }
    return reply


def make_shell():
    shell = InteractiveShell.instance()
    shell.colors, shell.quiet, shell.ast_node_interactivity = "NoColor", True, "last_expr"
    return shell


def package_directories():
    """The directories of packages. Python read their .pth files when it started."""
    own = [path for path in sys.path if path.endswith("-packages")]
    return [*own, *site.getsitepackages(), site.getusersitepackages()]


def main():
    print(json.dumps({"status": "ready", "packages": package_directories()}), flush=True)
    # The first cell creates the shell: creating it writes to the home directory, where a prepared kernel must leave no trace.
    shell = None
    while True:
        try:
            line = sys.stdin.readline()
            if not line:
                return
            request = json.loads(line)
            shell = shell or make_shell()
            reply = execute(shell, request.get("code", ""))
            reply["success"] = reply["error"] is None
            print(json.dumps(reply), flush=True)
        except KeyboardInterrupt:
            return
        except Exception as error:
            problem = {"type": "InternalError", "message": str(error), "traceback": traceback.format_exc()}
            print(json.dumps({"error": problem, "success": False, "status": "error"}), flush=True)


main()
