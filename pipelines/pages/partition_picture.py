"""A page that shows a partition: how many examples each site has of each label."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.pages.formats import short
from pipelines.pages.inline_svg import drawing, inline
from pipelines.pages.page import document, paragraph, table

if TYPE_CHECKING:  # it takes a second to import, and only those who draw need it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEW = 25  # sites whose counts fit into their cells
ROW_INCHES, LOW_ROW_INCHES = 0.34, 0.15
TALLEST_INCHES = 60.0
COLUMN_INCHES, MARGIN_INCHES = 0.85, 4.2  # the names of sites on the left, the bars on the right
LINE = "#1f5fa8"
LONGEST = 24  # characters of a name


def page(manifest: Mapping[str, Any]) -> str:
    """One self-contained HTML page."""
    title, words = f"Partition: {len(manifest['sites'])} sites", told(manifest)
    parts = [f"<h1>{title}</h1>", paragraph(words)]
    if manifest["kind"] == "simulation":
        with drawing("partition"):
            parts.append(inline(figure(manifest), "partition", title, words))
    else:
        rows = [(site, _registered(found), _bounds(found)) for site, found in manifest["sites"].items()]
        parts.append(table(("site", "data", "units"), rows, "ttt"))
    return document(title, parts)


def _registered(found: Mapping[str, Any]) -> str:
    if not found:
        return "never seen"
    registered = found.get("registered")
    return "not said" if registered is None else f"{'' if registered else 'not '}registered"


def _bounds(found: Mapping[str, Any]) -> str:
    return f"at least {found['units_low']}, each {found['unit']}" if "unit" in found else "not said"


def told(manifest: Mapping[str, Any]) -> str:
    """What is in the parts, as a sentence."""
    if manifest["kind"] == "consortium":
        return f"The data stay at the sites ({', '.join(manifest['sites'])}); of them stands here what they let out."
    examples, test = [site["examples"] for site in manifest["sites"].values()], manifest["test"]
    copies = test.get("copies", 0)
    return (
        f"{manifest['source']}, split by seed {manifest['seed']}: {sum(examples)} examples for training, "
        f"{min(examples)} to {max(examples)} at a site, and {test['examples']} for the test"
        f"{f', without {copies} that are also trained on' if copies else ''}."
    )


def figure(manifest: Mapping[str, Any]) -> "Figure":
    """A row for each site: the share of each label among its examples, and how many examples it has."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    sites, labels = manifest["sites"], manifest["labels"]
    counts = np.array([[site["labels"].get(label, 0) for label in labels] for site in sites.values()])
    row = ROW_INCHES if len(sites) <= FEW else LOW_ROW_INCHES
    height = min(TALLEST_INCHES, 1.8 + row * len(sites))
    width = MARGIN_INCHES + COLUMN_INCHES * min(len(labels), 24)
    drawn = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.05))
    left, right = drawn.subplots(1, 2, width_ratios=[COLUMN_INCHES * len(labels), 1.6], sharey=True)
    shares(left, counts, labels, tuple(sites))
    _totals(right, counts.sum(axis=1))
    return drawn


def shares(axes: "Axes", counts: NDArray[np.int64], labels: Sequence[str], sites: Sequence[str]) -> None:
    """A cell for each site and label: the label's share of the site's examples; of few sites also how many they are.

    `counts` is (sites, labels).
    """
    few = len(sites) <= FEW
    shades = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shades, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(labels)), [short(label, LONGEST) for label in labels], rotation=35, ha="left", fontsize=9)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_yticks(range(len(sites)), [short(site, LONGEST) for site in sites], fontsize=9 if few else 6.5)
    bar = axes.figure.colorbar(image, ax=axes, location="bottom", shrink=0.6, aspect=30, pad=0.02)
    bar.set_label("share of the site's examples; the number is how many" if few else "share of the site's examples")
    if not few:
        return
    for at, label in np.ndindex(*counts.shape):
        shade = "white" if shades[at, label] > 0.55 else "#222222"
        axes.text(label, at, f"{counts[at, label]:,}", ha="center", va="center", fontsize=8, color=shade)


def _totals(axes: "Axes", totals: NDArray[np.int64]) -> None:
    few = len(totals) <= FEW
    axes.barh(range(len(totals)), totals, color=LINE, height=0.7)
    axes.set_xlim(0, float(totals.max()) * 1.35)
    axes.set_xticks([])
    axes.tick_params(left=False)
    axes.set_title("examples", fontsize=9)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    size = 8 if few else 6
    for at, total in enumerate(totals):
        where = (float(total), at)
        axes.annotate(f"{total:,}", where, xytext=(3, 0), textcoords="offset points", va="center", fontsize=size)
