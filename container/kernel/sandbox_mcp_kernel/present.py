"""Turns values and exceptions into text and images for a model."""

import re
import sys
import tempfile
import weakref

from .own import base64, contextlib, io, json, os, traceback

TEXT_CHARS = 32 * 1024
NOTE_CHARS = 128
MARKUP_CHARS = 256 * 1024
# Limits of one output. A run may have RESULTS outputs, which may have TOTAL_BYTES together.
IMAGE_BYTES = 6 * 1024 * 1024
TOTAL_BYTES = 12 * 1024 * 1024
RESULTS = 100
# Limits of the document, because the server keeps it in memory. A larger image goes to a file: the server can show at most 700 KiB,
# which are INLINE_BYTES in base64. The server stores 1.5 MB of results in UTF-8, which takes up to half as many bytes as ASCII.
INLINE_BYTES = 960 * 1024
DOCUMENT_BYTES = 3 * 1024 * 1024
FILES = 20
MESSAGE_CHARS = 16 * 1024
NAME_CHARS = 200
FRAMES = 40
WIDTH = 100
ITEMS = 1000
DEPTH = 20

FORMS = {
    "text/plain": "text",
    "text/html": "html",
    "text/markdown": "markdown",
    "text/latex": "latex",
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/webp": "webp",
    "image/gif": "gif",
    "image/svg+xml": "svg",
    "application/javascript": "javascript",
}
IMAGES = {"png", "jpeg", "webp", "gif"}

# HTML with scripts needs a browser. Tables and styled words have a text form.
INTERACTIVE = re.compile(r"<(script|iframe)\b", re.IGNORECASE)
OUTPUTS = "/workspace/.outputs"
PAGES = 20
PAGE_BYTES = 32 * 1024 * 1024
# Beside an image, text above this length adds nothing: Plotly's text form is the whole chart as Python.
PAGE_TEXT_CHARS = 500
# HTML above this length is mostly markup, so models get its text form.
HTML_CHARS = 1000

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def call_user(function, *arguments):
    """Calls the user's code, such as a repr. An interrupt raises KeyboardInterrupt in it."""
    return function(*arguments)


def attempt(function, *arguments):
    """Returns (value, None) or (None, exception), also for KeyboardInterrupt and SystemExit."""
    try:
        return call_user(function, *arguments), None
    except BaseException as error:
        return None, error


def shorten(text, limit=TEXT_CHARS):
    if len(text) <= limit:
        return text
    half = (limit - NOTE_CHARS) // 2
    left_out = f"[... {len(text) - 2 * half} of {len(text)} characters omitted: print it, or write it to a file ...]"
    return f"{text[:half]}\n{left_out}\n{text[-half:]}"


def plain(value, float_format="%r"):
    """The value as text. Containers are laid out and bounded, everything else has its own repr."""
    with _plain_numbers(value):
        text, error = attempt(_layout, value, 0, frozenset(), [TEXT_CHARS], float_format)
    if error is None and isinstance(text, str):
        return shorten(text)
    return f"<{type(value).__name__} whose repr failed: {type(error).__name__}: {_message(error)}>"


BRACKETS = {list: "[]", tuple: "()", set: "{}", frozenset: ("frozenset({", "})"), dict: "{}"}


def _plain_numbers(value):
    """Makes NumPy 2 write 6, as NumPy 1 did, and not np.int64(6)."""
    numpy = sys.modules.get("numpy")
    # Arrays keep NumPy 2's repr, because it adds the shape of a long array.
    if not str(getattr(numpy, "__version__", "")).startswith("2.") or isinstance(value, getattr(numpy, "ndarray", ())):
        return contextlib.nullcontext()
    context, error = attempt(lambda: numpy.printoptions(legacy="1.25"))
    return contextlib.nullcontext() if error else context


def _layout(value, indent, seen, budget, float_format):
    kind = type(value)
    if kind not in BRACKETS or (not value and kind in (set, frozenset)):
        is_formatted = isinstance(value, float) and float_format != "%r"
        text = float_format % value if is_formatted else repr(value)
        budget[0] -= len(text)
        return text
    if id(value) in seen or len(seen) > DEPTH:
        return "..."
    seen = seen | {id(value)}
    first, last = BRACKETS[kind]
    items = []
    for item in value.items() if kind is dict else value:
        if len(items) >= ITEMS or budget[0] <= 0:
            items.append(f"... {len(value) - len(items)} more")
            break
        if kind is dict:
            key = _layout(item[0], indent + 1, seen, budget, float_format)
            items.append(f"{key}: {_layout(item[1], indent + 1, seen, budget, float_format)}")
        else:
            items.append(_layout(item, indent + 1, seen, budget, float_format))
    budget[0] -= 2 * len(items)
    if kind is tuple and len(items) == 1:
        last = ",)"
    width = sum(map(len, items)) + 2 * len(items) + indent
    if width <= WIDTH and not any("\n" in item for item in items):
        return first + ", ".join(items) + last
    pad = " " * (indent + len(first))
    if kind is dict or any("\n" in item for item in items):
        return first + (",\n" + pad).join(items) + last
    lines, line = [], ""
    for item in items:
        if line and len(pad) + len(line) + len(item) + 2 > WIDTH:
            lines.append(line)
            line = item
        else:
            line = f"{line}, {item}" if line else item
    return first + (",\n" + pad).join([*lines, line]) + last


class Results:
    """The run's outputs in order, bounded. Each is a dict with one item per form: text, png, ..."""

    # IPython reads this attribute of its display publisher.
    is_publishing = False

    def __init__(self, notebook, output):
        self.notebook, self.shell, self.output = notebook, notebook.shell, output
        self.items = []
        self.sizes = []
        # The indexes of the items that can be replaced, by display_id.
        self.places = {}
        self.omitted = 0
        # Why the last output lacks a form.
        self.left_out = None
        self.is_stale = False
        self.pages = 0
        # The figures themselves and not their ids, because a closed figure's id may be reused.
        self.figures = weakref.WeakSet()

    def publish(self, data=None, metadata=None, *, transient=None, update=False, **_ignored):
        """Called by display(): this object is the shell's display publisher."""
        name = (transient or {}).get("display_id")
        if not update or name in self.places:
            self.add(data or {}, name, update)

    def clear_output(self, wait=False):
        """Forgets earlier outputs. @param wait whether to forget them only at the next output"""
        self.is_stale = True
        self.output.clear(wait)
        if not wait:
            self._clear()

    def _clear(self):
        if self.output.is_stale:
            self.output.clear()
        if self.is_stale:
            self.items, self.sizes, self.places, self.omitted, self.is_stale = [], [], {}, 0, False

    def value(self, value):
        show = getattr(type(value), "_ipython_display_", None)
        if show is not None and attempt(show, value)[1] is None:
            return
        data, error = attempt(self._rich, value)
        self.add({**(data or {}), "text/plain": plain(value, self.notebook.float_format)})
        if isinstance(error, KeyboardInterrupt):
            raise error

    def _rich(self, value):
        return self.shell.display_formatter.format(value, exclude={"text/plain"})[0]

    def add_figure(self, value, data):
        """Adds the picture of a matplotlib figure to its forms. At the end of the cell, the figure is then not shown again."""
        module = sys.modules.get("matplotlib.figure")
        if module is None or not isinstance(value, module.Figure):
            return data
        self.figures.add(value)
        if any(FORMS.get(mime) in IMAGES for mime in data):
            return data
        buffer = io.BytesIO()
        value.savefig(buffer, format="png", bbox_inches="tight")
        return {**data, "image/png": buffer.getvalue()}

    def open_figures(self):
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is None:
            return
        numbers, error = attempt(pyplot.get_fignums)
        for number in numbers or []:
            figure, error = attempt(pyplot.figure, number)
            if error is None and figure not in self.figures:
                data, error = attempt(self._rich, figure)
                self.add(data if error is None else {"text/plain": f"<figure {number}: {_message(error)}>"})
        if numbers:
            attempt(pyplot.close, "all")
            # Without this, IPython assumes that a figure is open, and %run draws on a new one.
            attempt(setattr, pyplot.draw_if_interactive, "called", False)

    def add(self, data, name=None, update=False):
        """@param name a name by which a later call can replace the output @param update whether to replace it"""
        self._clear()
        found = self._forms(data)
        if not found:
            return
        size, error = attempt(_size, found)
        if error is not None:
            return
        place = self.places.get(name) if update else None
        before = 0 if place is None else self.sizes[place]
        if sum(self.sizes) - before + size > TOTAL_BYTES or (place is None and len(self.items) >= RESULTS):
            self.omitted += 1
            return
        if place is None:
            place = len(self.items)
            self.items.append(None)
            self.sizes.append(0)
        self.items[place], self.sizes[place] = found, size
        if name is not None:
            self.places[name] = place

    def _forms(self, data):
        found = {}
        self.left_out = None
        for mime, form in FORMS.items():
            if mime in data and data[mime] is not None:
                self._put(found, form, data[mime])
        value = data.get("application/json")
        if value is not None and found.keys() <= {"text"} and found.get("text", "<").startswith("<"):
            found["text"] = plain(value, self.notebook.float_format)
        page = found.pop("html_file", None)
        images = [form for form in FORMS.values() if form in IMAGES & found.keys()]
        for other in images[1:]:
            # All image forms show the same picture; the first form is the best.
            del found[other]
        text = found.get("text", "<")
        html = data.get("text/html") if page is None and not images else None
        if html is not None and found.keys() <= {"text", "html"} and text.startswith("<") and len(str(html)) > HTML_CHARS:
            # Models see the text; the HTML is for clients that ask for data.
            found["text"] = f"{found.get('text', '')}\n[HTML of {len(str(html))} characters]".lstrip()
        elif len(found) > 1 and (text.startswith("<") or (images and len(text) > PAGE_TEXT_CHARS)):
            # "<Figure size 640x480>" adds nothing to the image.
            found.pop("text", None)
        if page is not None:
            text = found.pop("text", "<")
            whole = page if text.startswith("<") or len(text) > PAGE_TEXT_CHARS else f"{text}\n{page}"
            found = {form: found[form] for form in images[:1]} | {"text": whole}
        if found and self.left_out is not None:
            # The note is for programs that may need that form.
            found["left_out"] = self.left_out
        return found

    def _put(self, found, form, value):
        if form in IMAGES:
            raw = value if isinstance(value, (bytes, bytearray)) else None
            text = base64.b64encode(raw).decode("ascii") if raw is not None else str(value).replace("\n", "")
            size = len(text.rstrip("=")) * 3 // 4
            if size > IMAGE_BYTES:
                found["text"] = (
                    f"[An image is left out: it has {size} bytes; at most {IMAGE_BYTES} can be shown. "
                    "Make it smaller: fewer pixels (a lower dpi, or PIL's thumbnail), or JPEG.]"
                )
            else:
                found[form] = text
        elif isinstance(value, (bytes, bytearray)):
            found[form] = shorten(bytes(value).decode("utf-8", "replace"))
        elif form in ("text", "markdown", "latex"):
            found[form] = shorten(str(value))
        elif form == "html" and INTERACTIVE.search(str(value)):
            # A chart of Plotly, Bokeh, Altair or Folium has megabytes for a browser, and nothing for a model.
            found["html_file"] = self._page(str(value))
        elif len(str(value)) <= MARKUP_CHARS:
            found[form] = str(value)
        else:
            # Truncated markup is useless: the text form is shown.
            self.left_out = f"A result's {form} of {len(str(value))} characters is left out: at most {MARKUP_CHARS} are kept."

    def _page(self, html):
        """Writes a page to a file. Returns a note with its path, or with the reason why it was not written."""
        data = html.encode("utf-8", "replace")
        if len(data) > PAGE_BYTES or self.pages >= PAGES:
            return f"[An interactive page of {len(data)} bytes is not kept: a run keeps at most {PAGES} pages, each of at most {PAGE_BYTES} bytes]"
        try:
            os.makedirs(OUTPUTS, exist_ok=True)
            with tempfile.NamedTemporaryFile("wb", dir=OUTPUTS, suffix=".html", delete=False) as file:
                file.write(data)
        except OSError as error:
            return f"[An interactive page of {len(data)} bytes is not kept: {error.strerror}]"
        self.pages += 1
        return f"[An interactive page, HTML of {len(data)} bytes: {file.name}]"

    def finish(self, run):
        """Returns the outputs for the document of this run. Those that do not fit are empty, and large images are in files."""
        if not self.output.is_stale:
            # Text printed after clear_output(wait=True) clears earlier displays, too.
            self._clear()
        room, files, shown = DOCUMENT_BYTES, 0, []
        for number, (found, size) in enumerate(zip(self.items, self.sizes), 1):
            form = next((form for form in found if form in IMAGES), None)
            if form is not None and size > min(room, INLINE_BYTES) and files < FILES:
                files += 1
                path = f"{OUTPUTS}/{run.rpartition('.')[2]}-{number}.{form}"
                found = _to_file(found, form, path, or_inline=size <= room)
                size = _size(found)
            if size > room:
                self.omitted += 1
                found, size = {}, 0
            room -= size
            shown.append(found)
        if self.omitted:
            shown.append({"text": f"[{self.omitted} more outputs not shown: too many or too large]"})
        return shown


def _to_file(found, form, path, or_inline):
    """Moves the image of an output to a file. If that fails, for example on a full disk, the image stays if `or_inline`."""

    def write(data):
        os.makedirs(OUTPUTS, exist_ok=True)
        with io.open(path, "wb") as file:
            file.write(data)

    rest = {other: value for other, value in found.items() if other != form}
    data, error = attempt(base64.b64decode, found[form])
    _, error = (None, error) if error else attempt(write, data)
    if error is None:
        return {**rest, "image_file": form}
    attempt(os.unlink, path)
    if or_inline:
        return found
    return {**rest, "text": f"[An image is left out: it is large, and its file could not be written ({_message(error)}).]"}


def _size(found):
    """The bytes of an output in the document. The document is JSON in ASCII, where a character takes up to twelve bytes."""
    return len(json.dumps(found, default=str))


def _message(error):
    text, problem = attempt(str, error)
    return shorten(text, MESSAGE_CHARS) if problem is None and isinstance(text, str) else "<message not printable>"


def describe(error):
    """{name, message, traceback: lines}, with only the user's frames and their source."""
    lines, problem = attempt(_traceback, error)
    name = type(error).__name__[:NAME_CHARS]
    return {"name": name, "message": _message(error), "traceback": lines if problem is None else [name]}


def _traceback(error):
    summary = traceback.TracebackException(type(error), error, error.__traceback__)
    _clean(summary, set())
    text = shorten("".join(summary.format()).rstrip("\n"), 4 * MESSAGE_CHARS)
    return text.split("\n")


def _clean(summary, seen):
    if summary is None or id(summary) in seen:
        return
    seen.add(id(summary))
    frames = [f for f in summary.stack if not is_machinery(f.filename)]
    first = next((i for i, f in enumerate(frames) if f.filename.startswith("<cell ")), None)
    if first is not None:
        frames = frames[first:]
    elif issubclass(summary.exc_type, (KeyboardInterrupt, SyntaxError)):
        # The event loop or the compiler raised the error, so there are no frames of the user's code.
        frames = []
    if len(frames) > FRAMES and len({(f.filename, f.lineno) for f in frames}) > FRAMES:
        frames = frames[: FRAMES // 2] + frames[-FRAMES // 2 :]
    summary.stack[:] = frames
    _clean(summary.__cause__, seen)
    _clean(summary.__context__, seen)
    for inner in getattr(summary, "exceptions", None) or []:
        _clean(inner, seen)


def is_machinery(filename):
    return filename.startswith(_HERE) or (os.sep + "IPython" + os.sep + "core" + os.sep) in filename
