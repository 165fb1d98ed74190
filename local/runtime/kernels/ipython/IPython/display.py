"""The names people import from IPython.display."""

from .core.display import (
    HTML,
    JSON,
    SVG,
    DisplayObject,
    Image,
    Javascript,
    Latex,
    Markdown,
    Math,
    Pretty,
    clear_output,
    display,
    display_html,
    display_markdown,
    publish_display_data,
)

__all__ = [
    "HTML",
    "JSON",
    "SVG",
    "DisplayObject",
    "Image",
    "Javascript",
    "Latex",
    "Markdown",
    "Math",
    "Pretty",
    "clear_output",
    "display",
    "display_html",
    "display_markdown",
    "publish_display_data",
]
