"""The policy of a site whose data the hub owns, as a hospital would have written it for the run."""

from typing import Any

from deerfield.runfile import RunFile, Source


def simulated_policy(file: RunFile, source: Source, low: int, high: int) -> dict[str, Any]:
    """A policy but for its models: one population, the run's, at `source`, with `low` to `high` units.

    Its budget is the run file's own, and where that has none, what the run spends.
    """
    embedded, privacy = file.embedded, file.privacy
    budget = embedded.budget.model_dump(exclude={"ledgers"}) if embedded.budget else {}
    thrown_away = {"epsilon": privacy.epsilon, "delta": privacy.delta} if privacy.unit != "none" else {}
    population = {
        "source": source.model_dump(),
        "unit": privacy.unit,
        **(budget or thrown_away),
        "units_low": low,
        "units_high": high,
        "validation": embedded.site_validation,
        "registration": "on_start",  # a trial needs no command before it
    }
    return {
        "populations": {file.population: population},
        "metrics": embedded.metrics,
        "device": embedded.device,
        "precision": embedded.precision,
        "threads": embedded.threads,
    }
