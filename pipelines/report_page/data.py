"""Whose data the run was trained on: the manifest of the partition, or what the sites let out of theirs."""

from typing import TYPE_CHECKING

from pipelines.page import paragraph, section, table
from pipelines.report_page import wording
from pipelines.report_page.documents import Manifest
from pipelines.report_page.found import Found
from pipelines.report_page.plots import NAMED, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SITES = 200
KINDS = {
    "simulation": "A simulation: data that the hub owns, divided over the sites.",
    "consortium": "A consortium: the data belong to the sites, and here stands no more than their policies allow.",
}


def data(found: Found) -> str:
    """The section."""
    title, manifest = "Training data", found.manifest
    if manifest is None:
        words = "There is no manifest of the partition. The data stay at the sites; nothing more is known of them here."
        return section("data", title, paragraph(words, "gap"))
    labels = list(manifest.labels) or sorted({label for site in manifest.sites.values() for label in site.labels})
    counted = any(site.labels for site in manifest.sites.values())
    return section(
        "data",
        title,
        paragraph(KINDS[manifest.kind] + (f" Source: {manifest.source}." if manifest.source else "")),
        _map(manifest, labels) if counted and len(labels) <= NAMED else "",
        _table(manifest, labels if counted and len(labels) <= 6 else []),
        paragraph(f"Kept apart for testing: {_examples(manifest)}.", "soft") if manifest.test else "",
    )


def _examples(manifest: Manifest) -> str:
    test = manifest.test
    return f"{wording.count(test.examples, 'example')}, sha256 {test.sha256}" if test else "none"


def _table(manifest: Manifest, labels: list[str]) -> str:
    rows = [
        (
            name,
            *("–" if count is None else str(count) for count in (site.units, site.examples)),
            *(str(site.labels.get(label, 0)) if site.labels else "–" for label in labels),
            site.sha256[:16],
        )
        for name, site in manifest.sites.items()
    ]
    rows, more = wording.cut(rows, SITES)
    head = ("site", "units", "examples", *labels, "sha256 of its part")
    return table(head, rows, "tnn" + "n" * len(labels) + "h") + (paragraph(more, "soft") if more else "")


def _map(manifest: Manifest, labels: list[str]) -> str:
    shown = [(name, site.labels) for name, site in manifest.sites.items() if site.labels][:NAMED]
    most = max(max(counts.values(), default=0) for _, counts in shown)
    words = f"Examples of each label at each site; the largest cell has {most}."

    def draw(figure: "Figure") -> None:
        _cells(figure.subplots(), [[counts.get(label, 0) for label in labels] for _, counts in shown], most)
        axes = figure.axes[0]
        slanted = {"rotation": 30, "ha": "right"} if sum(map(len, labels)) > 70 else {}
        axes.set_xticks([place + 0.5 for place in range(len(labels))], labels, fontsize=9, **slanted)
        axes.set_yticks([place + 0.5 for place in range(len(shown))], [name for name, _ in shown], fontsize=9)

    return picture("partition", "Examples by site and label", words, draw, 1.0 + 0.3 * len(shown))


def _cells(axes: "Axes", counts: list[list[int]], most: int) -> None:
    axes.pcolormesh(counts, cmap="Blues", vmin=0, vmax=max(most, 1), edgecolors="white", linewidth=1)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    for row, cells in enumerate(counts):
        for column, count in enumerate(cells):
            ink = "white" if count > 0.55 * most else "#1d232b"
            axes.text(column + 0.5, row + 0.5, str(count), ha="center", va="center", fontsize=9, color=ink)
