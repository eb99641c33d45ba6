"""What the aggregator knows of a consortium's sites, held against a run before any of them spends on it."""

from collections.abc import Callable, Mapping
from typing import Any

from deerfield.errors import InvalidInput
from deerfield.roster import KnownSite, obstacle
from deerfield.runspec import RunSpec
from pipelines.runs.runs_report import known_json
from pipelines.steps.reach import runs_at
from pipelines.steps.rounds import needed

Say = Callable[[str], object]


def roster(spec: RunSpec, aggregator: str, say: Say) -> Mapping[str, Mapping[str, Any]]:
    """What each site of a run has let out of its policy, as the manifest has it; empty for one that was never seen.

    Says a line for each site that would not take part, or does not say whether it would.

    Raises:
        InvalidInput: fewer sites than a phase needs would take part; the message names those that would not.
        Unreachable: the aggregator did not answer for a minute.
    """
    with runs_at(aggregator) as runs:
        known = {each.site: each for each in runs.sites()}
    wanted = spec.federation.sites
    troubles = {site: why for site in wanted if (why := obstacle(spec, known.get(site))) is not None}
    told = [f"{site} {why}" for site, why in troubles.items()]
    if len(wanted) - len(troubles) < (least := needed(spec)):
        raise InvalidInput(
            f"{len(troubles)} of {len(wanted)} sites would not take part, and a phase needs {least}: {'; '.join(told)}"
        )
    for line in told:
        say(f"warning: {line}")
    for site in wanted:
        if site in known and known[site].report.population(spec.population) is None and site not in troubles:
            say(f"{site}'s policy does not let it say whether it has population {spec.population!r}")
    return {site: _entry(known.get(site), spec.population) for site in wanted}


def _entry(known: KnownSite | None, population: str) -> dict[str, Any]:
    """What a site said of the run's population: no more than its policy lets out."""
    if known is None:
        return {}
    about = known_json(known)
    own = [each for each in about["populations"] if each["name"] == population]
    said = {name: value for each in own for name, value in each.items() if name != "name"}
    return {**{name: about[name] for name in ("build", "protocol", "said") if name in about}, **said}
