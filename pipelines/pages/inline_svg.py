"""A matplotlib figure as SVG inside a page: the same figure gives the same bytes, and no address leads elsewhere."""

import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # it takes a second to import, and only those who draw need it
    from matplotlib.figure import Figure

METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # none of them


@contextmanager
def drawing(name: str) -> Iterator[None]:
    """What a figure for a page is made and written under: text stays text, and a dollar sign is one."""
    from matplotlib import rc_context

    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": "sans-serif",
        "text.parse_math": False,
    }
    with rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # the reader's fonts draw it
        yield


def inline(figure: "Figure", name: str, title: str, description: str) -> str:
    """The figure, made under `drawing(name)`, with what a screen reader says; `name` tells its ids from others'."""
    text = StringIO()
    figure.savefig(text, format="svg", metadata=METADATA)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]  # no declaration, metadata or namespaces, which are all addresses elsewhere
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", svg, count=2)
    svg = _once(re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg))
    opening, rest = svg.split(">", 1)
    told = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-text">{escape(description)}</desc>'
    return f'{opening} role="img" aria-labelledby="{name}-title {name}-text">\n{told}{rest}'


def _once(svg: str) -> str:
    """Equal parts of a figure have equal ids; in a page an id stands once, and the first serves them all."""
    seen: Counter[str] = Counter()

    def told(found: re.Match[str]) -> str:
        seen[found[1]] += 1
        return f'id="{found[1]}"' if seen[found[1]] == 1 else f'id="{found[1]}-{seen[found[1]]}"'

    return re.sub(r'\bid="([^"]*)"', told, svg)
