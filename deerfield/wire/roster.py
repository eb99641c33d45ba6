"""Between protobuf messages and what sites say of themselves; checks before it allocates."""

from collections.abc import Mapping
from typing import get_args

from deerfield.errors import BadRequest
from deerfield.roster import NOTHING, KnownSite, PopulationReport, SiteReport
from deerfield.types import Unit
from deerfield.wire import federation_pb2 as pb
from deerfield.wire import limits
from deerfield.wire.checks import at_most, detail, named, one_of, population_name, sha256_name

UNITS: Mapping[str, Unit | None] = {"": None, **{word: word for word in get_args(Unit)}}
MOST_UNITS = limits.LEDGER_ENTRIES  # every JSON reader can hold it


def encode_report(report: SiteReport) -> pb.SiteReport:
    """A report as a message."""
    return pb.SiteReport(populations=[_encoded(each) for each in report.populations], complete=report.complete)


def decode_report(message: pb.SiteReport) -> SiteReport:
    """A report, checked for form.

    Raises:
        TooLarge, BadRequest: more populations than `limits.POPULATIONS`, one twice, or what no population can be.
    """
    at_most(len(message.populations), limits.POPULATIONS, "populations of a site")
    found = tuple(_decoded(each) for each in message.populations)
    if len({each.name for each in found}) < len(found):
        raise BadRequest("a population stands twice in what a site says of itself")
    return SiteReport(populations=found, complete=message.complete)


def build_name(text: str) -> str:
    """The version of a caller's software, no longer than a name may be."""
    return detail(text)[: limits.NAME_CHARS]


def encode_site(known: KnownSite) -> pb.KnownSite:
    """A site as a message."""
    return pb.KnownSite(
        site=known.site,
        protocol=known.protocol,
        build=known.build,
        report=encode_report(known.report),
        said_at=known.said_at,
        heard_at=known.heard_at,
    )


def decode_site(message: pb.KnownSite) -> KnownSite:
    """A site as the aggregator knows it; raises BadRequest, TooLarge."""
    return KnownSite(
        site=named(message.site, "a site's name"),
        protocol=message.protocol,
        build=build_name(message.build),
        report=decode_report(message.report) if message.HasField("report") else NOTHING,
        said_at=message.said_at,
        heard_at=message.heard_at,
    )


def _encoded(found: PopulationReport) -> pb.PopulationReport:
    return pb.PopulationReport(
        name=found.name,
        data_commitment=bytes.fromhex(found.commitment),
        on_start=found.on_start,
        unit=found.unit or "",
        units_low=found.units_low,
        units_high=found.units_high,
    )


def _decoded(message: pb.PopulationReport) -> PopulationReport:
    low, high = message.units_low, message.units_high
    unit = one_of(message.unit, UNITS, "unit")
    if high > MOST_UNITS or (not 1 <= low <= high if unit else (low, high) != (0, 0)):
        raise BadRequest(f"a population of unit {message.unit!r} has no bounds of {low} to {high} units")
    return PopulationReport(
        name=population_name(message.name),
        commitment=sha256_name(message.data_commitment) if message.data_commitment else "",
        on_start=message.on_start,
        unit=unit,
        units_low=low,
        units_high=high,
    )
