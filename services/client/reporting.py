"""What a site tells the hub of itself before a run asks: what its policy lets out, and nothing of its data."""

from pathlib import Path

import structlog

from deerfield.errors import InvalidInput
from deerfield.roster import PopulationReport, SiteReport
from deerfield.wire import limits
from services.client.custody.ledger_file import NAME, account_of, read
from services.client.policy import Policy, Population

log = structlog.get_logger()


def site_report(policy: Policy, state: Path) -> SiteReport:
    """The report of a site whose ledgers are in `state`: the policy's words, and the commitments that ledgers hold.

    No data are read: what was registered last is said, whatever lies there now. A population whose ledger cannot be
    used is left out, as one that the policy keeps to itself, and so is what is beyond `limits.POPULATIONS`.
    """
    told = {name: each for name, each in policy.populations.items() if each.reports != "nothing"}
    found = []
    for name, population in sorted(told.items())[: limits.POPULATIONS]:
        try:
            found.append(_population(name, population, state / "ledgers" / name))
        except InvalidInput as fault:  # a run that asks for it is declined for it
            log.error("not reported", population=name, sentence=str(fault))
    return SiteReport(populations=tuple(found), complete=len(found) == len(policy.populations))


def _population(name: str, population: Population, ledger: Path) -> PopulationReport:
    held = account_of(read(ledger), ledger / NAME).terms if (ledger / NAME).exists() else None
    terms = population.reports == "terms"
    return PopulationReport(
        name=name,
        commitment=(held.commitment or "") if held is not None else "",
        on_start=population.registration == "on_start",
        unit=population.unit if terms else None,
        units_low=population.units_low if terms else 0,
        units_high=population.units_high if terms else 0,
    )
