"""docs/metrics.md, the declarations of the metrics and what a Prometheus is told are the same."""

import importlib.util
from pathlib import Path

import pytest

from services.aggregator import metrics as aggregator
from services.aggregator.assembly import DEFAULTS
from services.aggregator.rpc.admission import Admission
from services.client import metrics as site

ROOT = Path(__file__).resolve().parents[2]
NO_BUDGETS: dict[str, tuple[float, float]] = {}


def registries():
    counted = aggregator.Metrics()
    counted.read(None, Admission(DEFAULTS), 60.0, None)
    return {
        "aggregator": (counted.registry, aggregator.FAMILIES),
        "site": (site.Metrics(lambda: NO_BUDGETS, None).registry, site.FAMILIES),
    }


def test_the_page_is_what_the_declarations_say():
    spec = importlib.util.spec_from_file_location("metrics_page", ROOT / "docs/metrics.py")
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    assert (ROOT / "docs/metrics.md").read_text() == page.markdown(), "run python docs/metrics.py > docs/metrics.md"


@pytest.mark.parametrize("which", ["aggregator", "site"])
def test_what_is_declared_is_registered_and_nothing_else(which):
    registry, families = registries()[which]
    registered = {name for name in registry._names_to_collectors if not name.endswith("_created")}
    for family in families:
        assert family.name in registered or f"{family.name}_bucket" in registered, family.name
    stems = {family.name.removesuffix("_total") for family in families}
    ends = ("", "_total", "_bucket", "_count", "_sum", "_info")
    assert registered <= {stem + end for stem in stems for end in ends}


@pytest.mark.parametrize("which", ["aggregator", "site"])
def test_names_and_units_follow_the_conventions(which):
    _, families = registries()[which]
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert family.name.startswith("deerfield_")
        assert family.name.endswith("_total") == (family.kind == "counter")
        stem = family.name.removesuffix("_total")
        assert stem.endswith("_seconds") == family.unit.startswith("seconds"), family.name
        assert stem.endswith("_timestamp_seconds") == (family.unit == "seconds since 1970")
        assert stem.endswith("_bytes") == (family.unit == "bytes")
        assert "site" not in family.labels
