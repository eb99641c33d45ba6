"""Whose data the run was trained on: the manifest of the partition, or what the sites let out of theirs."""

from typing import TYPE_CHECKING

import numpy as np

from deerfield.documents.partition_manifest import Manifest
from pipelines.pages.formats import short
from pipelines.pages.page import joined, pairs, paragraph, table
from pipelines.pages.partition_picture import ROW_INCHES, shares
from pipelines.report_page import wording
from pipelines.report_page.found import Found
from pipelines.report_page.plots import NAMED, picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SITES = 200  # rows of the table
LONGEST = 18  # characters of a label along the axis
KINDS = {
    "simulation": "A simulation: data that the hub owns, divided over the sites.",
    "consortium": "A consortium: the data belong to the sites, and here stands no more than their policies allow.",
}


def data(found: Found) -> str:
    """The section."""
    manifest = found.manifest
    if manifest is None:
        words = "No manifest of the partition was given to this report: of the training data nothing is known here."
        return joined(paragraph(words, "gap"))
    labels = list(manifest.labels) or sorted({label for site in manifest.sites.values() for label in site.labels})
    if not any(site.model_fields_set for site in manifest.sites.values()):
        words = f"Who takes part: {wording.several(manifest.sites, NAMED)}. Nothing of their data is known here."
        return joined(paragraph(KINDS[manifest.kind]), paragraph(words))
    counted = any(site.labels for site in manifest.sites.values())
    return joined(
        paragraph(KINDS[manifest.kind] + (f" Source: {manifest.source}." if manifest.source else "")),
        _map(manifest, labels) if counted and len(labels) <= NAMED else "",
        _table(manifest, labels if counted and len(labels) <= 6 else []),
        _test(manifest),
    )


def _test(manifest: Manifest) -> str:
    if manifest.test is None:
        return ""
    rows = {
        "kept apart for testing": wording.count(manifest.test.examples or 0, "example"),
        "sha256": manifest.test.sha256,
    }
    return pairs(rows)


def _table(manifest: Manifest, labels: list[str]) -> str:
    rows = [
        (
            name,
            f"at least {site.units_low}" if site.units is None and site.units_low else _count(site.units),
            _count(site.examples),
            *(str(site.labels.get(label, 0)) if site.labels else "–" for label in labels),
            site.sha256[:16],
        )
        for name, site in manifest.sites.items()
    ]
    rows, more = wording.cut(rows, SITES)
    head = ("site", "units", "examples", *(short(label, LONGEST) for label in labels), "sha256 of its part")
    return table(head, rows, "tnn" + "n" * len(labels) + "h") + (paragraph(more, "soft") if more else "")


def _count(count: int | None) -> str:
    return "–" if count is None else str(count)


def _map(manifest: Manifest, labels: list[str]) -> str:
    shown = [(name, site.labels) for name, site in manifest.sites.items() if site.labels][:NAMED]
    sites = [name for name, _ in shown]
    counts = np.array([[found.get(label, 0) for label in labels] for _, found in shown])
    words = f"Examples of each label at each site; the largest cell has {counts.max()}."
    if len(shown) < len(manifest.sites):
        words += f" Drawn: {len(shown)} of {len(manifest.sites)} sites."

    def draw(figure: "Figure") -> None:
        shares(figure.subplots(), counts, labels, sites)

    return picture("partition", "Examples by site and label", words, draw, 1.8 + ROW_INCHES * len(shown))
