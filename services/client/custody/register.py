"""Registration: a hospital looks at a population before any run does, and its ledger notes which data that were.

What is found is told to the hospital alone, and decides only whether a person goes on: nothing of it reaches a run. A
run asks one thing, whether the data are those that were registered (`admit`), before a record is used. That answer is
the same whatever the records say: it changes when somebody changes the data and does not register them again. So a
registered population never declines because of what is in its data, and one that is registered when a run starts
(`registration: on_start`) goes on whatever its counts are; only a column that is not there stops it, which is no
property of a record.

Registering other data continues the ledger: patients who are exported again have the budget that they had.
"""

from math import inf
from pathlib import Path

import structlog

from deerfield import keyfile
from deerfield.errors import InvalidInput, NotMapped
from deerfield.ledger.details import Terms
from deerfield.ledger.entry import Head
from services.client.custody.commitment import commitment, salt
from services.client.custody.ledger_file import NAME, Ledger, account_of, read
from services.client.custody.survey import Report, survey
from services.client.policy import Policy, Population

log = structlog.get_logger()


def surveys(policy: Policy, name: str | None) -> list[Report]:
    """Looks at a population of the policy, or at all of them, as a person asks for it.

    Raises:
        InvalidInput: the policy has none of that name, or a source cannot be read at all.
    """
    if name is not None and name not in policy.populations:
        raise InvalidInput(f"population {name!r} is not in the policy ({', '.join(sorted(policy.populations))})")
    names = policy.populations if name is None else (name,)
    return [survey(each, policy.populations[each]) for each in names]


def record(site: str, policy: Policy, name: str, state: Path) -> Head:
    """Notes in the population's ledger which data it is from now on; begins the ledger if there is none.

    Raises:
        InvalidInput: the data cannot be read, are those of another population, or the ledger is another site's.
        LedgerFault: the ledger cannot be used.
    """

    def check_site(held: Terms | None) -> None:
        if held is not None and held.site != site:
            raise InvalidInput(
                f"the ledger of population {name!r} in {state} is that of site {held.site!r}, not of {site!r}; name "
                "the right site or state folder"
            )

    agreed = terms(site, policy, name, commitment(policy.populations[name].source, salt(state)))
    _check_new(agreed, state)
    with Ledger.open(state / "ledgers" / name, keyfile.load(state / keyfile.SITE), agreed, admit=check_site) as ledger:
        return ledger.head


def _check_new(agreed: Terms, state: Path) -> None:
    """The very same data have one budget, whatever they are called; a changed copy nobody can recognise."""
    for path in sorted(state.glob(f"ledgers/*/{NAME}")):
        held = account_of(read(path.parent), path).terms
        if held.population != agreed.population and held.commitment == agreed.commitment:
            raise InvalidInput(
                f"the data of population {agreed.population!r} are those of {held.population!r}, byte for byte, and "
                f"the same people would have two budgets; let runs name {held.population!r}"
            )


def terms(site: str, policy: Policy, name: str, data_commitment: str) -> Terms:
    """What the policy promises about a population, of these data, as its ledger has it."""
    population = policy.populations[name]
    return Terms(
        federation=policy.federation,
        site=site,
        population=name,
        unit=population.unit,
        epsilon=inf if population.epsilon is None else population.epsilon,
        delta=population.delta,
        filter=population.filter,
        order=population.order,
        units_low=population.units_low,
        units_high=population.units_high,
        commitment=data_commitment,
    )


def admit(name: str, population: Population, found: str, held: Terms | None) -> None:
    """Lets a run use a population whose data have the commitment `found`, and whose ledger says `held`.

    Raises:
        NotMapped: they are not registered, and the policy wants that a person does it.
        InvalidInput: they are registered now, and cannot be read or lack a column.
    """
    known = None if held is None else held.commitment
    if known == found:
        return
    if population.registration == "required":
        why = "is not registered" if known is None else "has other data than were registered"
        raise NotMapped(
            f"population {name!r} {why}; run `deerfield register POLICY --site NAME --state DIR --population {name}`"
        )
    report = survey(name, population, pictures="trust")
    for finding in report.findings:
        log.warning("registration", population=name, level=finding.level, finding=finding.sentence)
        if finding.about == "columns":
            raise InvalidInput(finding.sentence)
