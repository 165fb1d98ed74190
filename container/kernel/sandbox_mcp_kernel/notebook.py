"""IPython's features for cells that this prelude runs: In and Out, magics, the user's names."""

import builtins
import functools
import re
import sys

from . import present

# Magics that need a terminal or a screen, and what to do instead.
WITHOUT_EFFECT = {
    "colors": "a kernel shows errors without colours",
    "edit": "a kernel has no editor; write the file with %%writefile or write_file",
    "gui": "a kernel has no screen; figures are shown with the results",
    "xmode": "a kernel shows every error in one way",
}
# Matplotlib's backends for screens and notebook pages.
SCREENS = set(
    "tk gtk gtk3 gtk4 wx qt qt4 qt5 qt6 osx macosx notebook nbagg widget ipympl webagg "
    "tkagg gtk3agg gtk4agg wxagg qtagg qt4agg qt5agg qt6agg".split()
)
WORD = re.compile(r"\s*([A-Za-z_]\w*)(?:\s|$)")
NO_NEXT_CELL = "# There is no next cell that %load or %recall could fill. This is the text:\n"


def _last_error(_line):
    error = getattr(sys, "last_value", None)
    print("No error so far." if error is None else "\n".join(present.describe(error)["traceback"]))


class Notebook:
    """IPython's shell, or a fallback without history: then there are no magics, and `record` does nothing."""

    def __init__(self, shell, leave):
        self.shell, self.leave = shell, leave
        self.history = getattr(shell, "history_manager", None)

    def install(self):
        shell = self.shell
        if self.history is None:
            self.restore_names()
            return
        # IPython would write every line of the history to a database on disk.
        self.history.db_cache_size = sys.maxsize
        # IPython's default runs each command in a terminal, which is slow and adds carriage returns.
        shell.system = shell.system_raw
        # IPython's shell leaves these methods to its terminal and notebook programs.
        shell.enable_gui = lambda gui=None: None
        self.enable_matplotlib, shell.enable_matplotlib = shell.enable_matplotlib, self.use_matplotlib
        shell.set_next_input = lambda text, replace=False: print(NO_NEXT_CELL + text)
        for name, why in WITHOUT_EFFECT.items():
            text = f"%{name} changes nothing here: {why}."
            shell.register_magic_function(lambda line, text=text: print(text), "line", name)
        shell.register_magic_function(_last_error, "line", "tb")
        # For cells that IPython itself runs: get_ipython().run_cell, %rerun.
        shell._showtraceback = lambda _kind, error, _text: print("\n".join(present.describe(error)["traceback"]))
        capture = shell.find_cell_magic("capture")
        shell.register_magic_function(functools.partial(self.capture, capture), "cell", "capture")
        for name, command in shell.alias_manager.aliases:
            shell.alias_manager.define_alias(name, command.replace(" --color", ""))
        init_user_ns = shell.init_user_ns

        def init_again():
            init_user_ns()
            self.restore_names()

        # %reset calls this method.
        shell.init_user_ns = init_again
        self.restore_names()

    def use_matplotlib(self, gui=None):
        """%matplotlib and %pylab: figures are shown with the results."""
        if str(gui).lower() in SCREENS:
            print(f"%matplotlib {gui} needs a screen or a notebook's page, which a kernel does not have: inline is used.")
            gui = None
        return self.enable_matplotlib("inline" if gui in (None, "auto") else gui)

    def capture(self, capture, line, cell):
        """%%capture, which also raises the cell's error."""
        run_cell, ran = self.shell.run_cell, []

        def run(*arguments, **options):
            ran.append(run_cell(*arguments, **options))
            return ran[-1]

        self.shell.run_cell = run
        try:
            capture(line, cell)
        finally:
            self.shell.run_cell = run_cell
        if ran:
            # Cells that this cell ran have added their results before. So the last result is this cell's own.
            ran[-1].raise_error()

    def restore_names(self):
        """Removes IPython's `open`, so that user code can replace Python's, and makes `exit` end the cell."""
        names = self.shell.user_ns
        if names.get("open", builtins.open) is not builtins.open:
            del names["open"]
        for name in ("exit", "quit"):
            names[name] = self.leave

    def is_automagic(self, source):
        """Whether this is one line that begins with a magic's name. Checked first, because `ls -l` is valid Python too."""
        word = WORD.match(source)
        if self.history is None or "\n" in source.strip() or word is None or word[1] in self.shell.user_ns:
            return False
        return self.shell.find_line_magic(word[1]) is not None

    def record(self, count, source, plain):
        """Records a cell for In, _i and %history."""
        if self.history is None:
            return
        self.shell.execution_count = count
        self.history.store_inputs(count, plain, source)
        del self.history.db_input_cache[:]
        # IPython does not record a cell that is only `exit`, so an empty text takes its place.
        for lines in (self.history.input_hist_parsed, self.history.input_hist_raw):
            lines.extend([""] * (count + 1 - len(lines)))

    def keep(self, value):
        if self.history is None:
            self.shell.user_ns["_"] = value
        else:
            self.shell.displayhook.update_user_ns(value)

    @property
    def float_format(self):
        """The format of numbers, which %precision sets."""
        return self.shell.display_formatter.formatters["text/plain"].float_format if self.history else "%r"
