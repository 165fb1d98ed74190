"""Display objects and the mapping from an object to its MIME representations."""

import base64
import json
import sys

METHODS = {
    "text/html": "_repr_html_",
    "text/markdown": "_repr_markdown_",
    "image/svg+xml": "_repr_svg_",
    "image/png": "_repr_png_",
    "image/jpeg": "_repr_jpeg_",
    "text/latex": "_repr_latex_",
    "application/json": "_repr_json_",
    "application/javascript": "_repr_javascript_",
}


class TypeFormatters(dict):
    """Functions that give one MIME type for objects of a class, named by the class or by its module and name."""

    def for_type(self, kind, function=None):
        return self.for_type_by_name(kind.__module__, kind.__qualname__, function)

    def for_type_by_name(self, module, name, function=None):
        previous = self.get((module, name))
        if function is not None:
            self[module, name] = function
        return previous

    def find(self, obj):
        for kind in type(obj).__mro__:
            if (kind.__module__, kind.__qualname__) in self:
                return self[kind.__module__, kind.__qualname__]
        return None


class DisplayFormatter:
    """`format(obj)` gives `({mime: data}, {mime: metadata})`; binary images come as base64 text."""

    def __init__(self):
        self.formatters = {mime: TypeFormatters() for mime in [*METHODS, "text/plain"]}

    def format(self, obj, include=None, exclude=None):
        data, metadata = {}, {}
        show = None if isinstance(obj, type) else getattr(type(obj), "_ipython_display_", None)
        if show is not None:
            show(obj)
            return {}, {}

        def put(mime, value):
            if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], dict):
                value, metadata[mime] = value
            if value is None or (include and mime not in include) or (exclude and mime in exclude):
                return
            if isinstance(value, (bytes, bytearray)):
                value = base64.b64encode(value).decode("ascii")
            data[mime] = value

        if not isinstance(obj, type):
            bundle = _call(obj, "_repr_mimebundle_", include=include, exclude=exclude)
            if isinstance(bundle, tuple):
                bundle, extra = bundle
                metadata.update(extra or {})
            for mime, value in (bundle or {}).items():
                put(mime, value)
            for mime, method in METHODS.items():
                registered = self.formatters[mime].find(obj)
                if registered is not None:
                    put(mime, registered(obj))
                if mime not in data:
                    put(mime, _call(obj, method))
        if "text/plain" not in data and not (exclude and "text/plain" in exclude):
            put("text/plain", (self.formatters["text/plain"].find(obj) or repr)(obj))
        return data, metadata


def _call(obj, name, **arguments):
    method = getattr(type(obj), name, None)
    if method is None or not callable(method):
        return None
    try:
        return method(obj, **arguments)
    except NotImplementedError:
        return None
    except Exception as error:
        print(f"{type(obj).__name__}.{name} failed: {type(error).__name__}: {error}", file=sys.stderr)
        return None


class DisplayPublisher:
    """Where display() sends its data outside a captured cell: nowhere but plain text on stdout."""

    def publish(self, data, metadata=None, source=None, **_ignored):
        if "text/plain" in data:
            print(data["text/plain"])

    def clear_output(self, wait=False):
        pass


def publish_display_data(data, metadata=None, **arguments):
    from .interactiveshell import InteractiveShell

    InteractiveShell.instance().display_pub.publish(data=data, metadata=metadata or {}, **arguments)


def display(*objs, include=None, exclude=None, metadata=None, raw=False, **_ignored):
    """Publish each object in every form it has."""
    from .interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    for obj in objs:
        if raw:
            publish_display_data(obj, metadata)
            continue
        data, extra = shell.display_formatter.format(obj, include=include, exclude=exclude)
        extra.update(metadata or {})
        publish_display_data(data, extra)


def display_html(*objs, raw=False, **_ignored):
    for obj in objs:
        display({"text/html": obj} if raw else obj, raw=raw, include=None if raw else {"text/html", "text/plain"})


def display_markdown(*objs, raw=False, **_ignored):
    for obj in objs:
        display({"text/markdown": obj} if raw else obj, raw=raw)


def clear_output(wait=False):
    """Nothing to clear: the output of a run is a log."""


class DisplayObject:
    """Data with one known form, taken from a value, a file or a URL."""

    mime = "text/plain"
    binary = False

    def __init__(self, data=None, url=None, filename=None, metadata=None, **options):
        if isinstance(data, (str,)) and url is None and filename is None and self._is_name(data):
            data, filename = None, data
        self.url, self.filename, self.metadata, self.options = url, filename, metadata or {}, options
        if data is None and filename is not None:
            with open(filename, "rb" if self.binary else "r") as file:
                data = file.read()
        elif data is None and url is not None:
            from urllib.request import urlopen

            with urlopen(url) as response:
                data = response.read()
            if not self.binary:
                data = data.decode("utf-8", "replace")
        self.data = data

    @staticmethod
    def _is_name(_data):
        return False

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {self.mime: self.data, "text/plain": repr(self)}, ({self.mime: self.metadata} if self.metadata else {})

    def __repr__(self):
        return f"<IPython.core.display.{type(self).__name__} object>"


class HTML(DisplayObject):
    mime = "text/html"


class Markdown(DisplayObject):
    mime = "text/markdown"


class Latex(DisplayObject):
    mime = "text/latex"


class Math(Latex):
    def __init__(self, data=None, **options):
        super().__init__("$\\displaystyle " + (data or "").strip("$") + "$", **options)


class SVG(DisplayObject):
    mime = "image/svg+xml"

    @staticmethod
    def _is_name(data):
        return "<" not in data


class Javascript(DisplayObject):
    mime = "application/javascript"


class Pretty(DisplayObject):
    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/plain": self.data}, {}


class JSON(DisplayObject):
    mime = "application/json"

    def __init__(self, data=None, **options):
        super().__init__(data, **options)
        if isinstance(self.data, str):
            self.data = json.loads(self.data)


class Image(DisplayObject):
    binary = True

    @staticmethod
    def _is_name(data):
        return True

    def _repr_mimebundle_(self, include=None, exclude=None):
        data = bytes(self.data or b"")
        mime = "image/jpeg" if data[:2] == b"\xff\xd8" else "image/gif" if data[:3] == b"GIF" else "image/png"
        return {mime: base64.b64encode(data).decode("ascii"), "text/plain": repr(self)}, {}
