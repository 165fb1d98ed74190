"""IPython's extra syntax (`!cmd`, `%magic`, `%%cell`, `name?`), rewritten to plain Python.

Python's own parser decides where it is needed: text that parses is never touched, and only the line the parser
stumbles over is rewritten. So a `%` or `!` inside a string or an expression is safe, and line numbers stay.
"""

import ast
import re

_LINE = re.compile(r"^(\s*)(?:([A-Za-z_][\w.,\[\]'\" ]*?)\s*=\s*)?(!!?|%)(.+)$", re.S)
_HELP = re.compile(r"^(\s*)(\??\??)([A-Za-z_][\w.]*)(\??\??)\s*$")


def transform_cell(source):
    """The cell as plain Python; what is not understood is returned as it is, for Python to refuse."""
    if source.lstrip().startswith("%%"):
        return _cell_magic(source)
    lines = source.splitlines(keepends=True)
    if not source.endswith("\n"):
        lines.append(lines.pop() + "\n") if lines else lines.append("\n")
    for _ in range(len(lines) + 1):
        text = "".join(lines)
        try:
            compile(text, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST, True)
            return text
        except SyntaxError as error:
            if not _rewrite(lines, (error.lineno or 1) - 1):
                return text
        except (ValueError, MemoryError, RecursionError):
            return text
    return "".join(lines)


def _rewrite(lines, at):
    for index in range(min(at, len(lines) - 1), -1, -1):
        found = _LINE.match(lines[index].rstrip("\n"))
        if found and not (found[3] == "%" and not re.match(r"[A-Za-z]", found[4])):
            return _replace(lines, index, found)
        found = _HELP.match(lines[index])
        if found and (found[2] or found[4]):
            lines[index] = f"{found[1]}get_ipython().run_line_magic('pinfo', {found[3]!r})\n"
            return True
        if index == at and lines[index].strip():
            # An indented block left empty by nothing but magics is reported one line later.
            continue
        if index < at - 1:
            return False
    return False


def _replace(lines, index, found):
    indent, target, kind, rest = found.groups()
    end = index
    while rest.endswith("\\") and end + 1 < len(lines):
        end += 1
        rest = rest[:-1] + " " + lines[end].strip()
    if kind == "%":
        name, _, argument = rest.partition(" ")
        call = f"get_ipython().run_line_magic({name!r}, {argument.strip()!r})"
    elif target or kind == "!!":
        call = f"get_ipython().getoutput({rest!r})"
    else:
        call = f"get_ipython().system({rest!r})"
    lines[index] = f"{indent}{target + ' = ' if target else ''}{call}\n"
    for extra in range(index + 1, end + 1):
        lines[extra] = "\n"
    return True


def _cell_magic(source):
    head, _, body = source.lstrip().partition("\n")
    name, _, argument = head[2:].partition(" ")
    return f"get_ipython().run_cell_magic({name!r}, {argument.strip()!r}, {body!r})\n"
