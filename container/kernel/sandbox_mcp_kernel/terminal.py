"""Replaces input(), getpass and pdb, because a kernel has no input."""

import builtins
import functools
import getpass
import pdb
import sys

NO_INPUT = (
    "{} has no input to read: nobody can type into a kernel. Write the program to a file, start it with "
    "run_command and interactive: true, and type with send_input."
)


def install(no_input):
    """@param no_input our sys.stdin, which user code may replace later"""

    def refuse(real, name):
        @functools.wraps(real)
        def ask(*arguments, **options):
            if sys.stdin is not no_input:
                return real(*arguments, **options)
            if name == "input()" and arguments:
                sys.stdout.write(str(arguments[0]))
            raise EOFError(NO_INPUT.format(name))

        return ask

    builtins.input = refuse(builtins.input, "input()")
    getpass.getpass = refuse(getpass.getpass, "getpass")
    real = pdb.Pdb.interaction

    @functools.wraps(real)
    def interaction(self, *arguments, **options):
        # A debugger that has its own input is not changed.
        if not self.use_rawinput or sys.stdin is not no_input:
            return real(self, *arguments, **options)
        raise EOFError(NO_INPUT.format("The debugger"))

    pdb.Pdb.interaction = interaction
