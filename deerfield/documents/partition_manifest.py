"""manifest.json: whose the training data of a run are, and the hashes of what the hub owns. docs/partition.md."""

import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from deerfield.documents.reading import Document, Part, Whole

NAME = "manifest.json"  # among a run's artifacts
NOTHING: Mapping[str, Mapping[str, object]] = MappingProxyType({})
TEST = "test"  # the name of the hub's test set among the parts

Sha256 = Annotated[str, Field(pattern="^(|[0-9a-f]{64})$")]  # empty: not known


class SitePart(Part):
    """What a manifest says of one site: in a consortium, no more than what the site has reported of itself."""

    units: Whole | None = None
    examples: Whole | None = None
    labels: Mapping[str, Whole] = {}
    sha256: Sha256 = ""
    part: str = ""  # where it is
    build: str = ""
    protocol: Whole | None = None
    said: str = ""  # when the site last said Hello
    registered: bool | None = None
    commitment: Sha256 = ""  # salted, to the data that it has registered
    unit: str | None = None
    units_low: Whole | None = None
    units_high: Whole | None = None


class HeldOut(SitePart):
    """The test set that was held out of hub-owned data."""

    copies: Whole = 0  # held-out examples that are in no part, because their like is trained on
    rows: str = ""  # npy file of its row numbers beside the manifest, where there is no `part`


class Manifest(Document):
    """manifest.json."""

    WHAT: ClassVar[str] = "the manifest of a partition"

    kind: Literal["simulation", "consortium"]  # the training data are the hub's own, or the sites'
    source: str = ""
    seed: Whole | None = None
    labels: tuple[str, ...] = ()
    columns: Mapping[str, str] = {}
    sites: Mapping[str, SitePart]
    test: HeldOut | None = None
    example_sha256: str = ""  # where the fingerprints of all training examples are

    @property
    def hub(self) -> Mapping[str, str]:
        """The sha256 of each part that the hub owns, by site and `test`; empty where it is not known."""
        if self.kind == "consortium":
            return {}
        parts = {site: each.sha256 for site, each in self.sites.items()}
        return {**parts, TEST: self.test.sha256 if self.test is not None else ""}


def text(found: Mapping[str, object]) -> str:
    """A manifest as it is written: the same for the same, for it is known by its hash."""
    return json.dumps(found, indent=2, allow_nan=False) + "\n"


def consortium(
    sites: Iterable[str], labels: Iterable[str], seed: int, reported: Mapping[str, Mapping[str, object]] = NOTHING
) -> dict[str, object]:
    """The manifest of a run whose data stay with its sites: of them no more than what each has `reported`."""
    return {
        "schema": Manifest.SCHEMA,
        "kind": "consortium",
        "source": "",
        "seed": seed,
        "labels": list(labels),
        "sites": {site: dict(reported.get(site, {})) for site in sites},
    }
