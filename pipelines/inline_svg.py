"""A matplotlib figure as SVG inside a page: the same figure gives the same bytes, and no address leads elsewhere."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from io import StringIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it takes a second to import, and only those who draw need it
    from matplotlib.figure import Figure

METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # none of them


@contextmanager
def drawing(name: str) -> Iterator[None]:
    """What a figure for a page is made and written under: text stays text, and a dollar sign is one."""
    from matplotlib import rc_context

    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": "sans-serif",
        "text.parse_math": False,
    }
    with rc_context(settings):
        yield


def inline(figure: "Figure", name: str, title: str, description: str) -> str:
    """The figure, made under `drawing(name)`, with what a screen reader says; `name` tells its ids from others'."""
    text = StringIO()
    figure.savefig(text, format="svg", metadata=METADATA)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]  # no declaration, metadata or namespaces, which are all addresses elsewhere
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", svg, count=2)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    opening, rest = svg.split(">", 1)
    told = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-text">{escape(description)}</desc>'
    return f'{opening} role="img" aria-labelledby="{name}-title {name}-text">\n{told}{rest}'
