"""What speaks against a site's part in a run, from what it was allowed to say beforehand."""

import pytest

from deerfield.roster import KnownSite, PopulationReport, SiteReport, obstacle
from deerfield.runspec import Privacy
from tests.fakes import run_spec

PRIVACY = Privacy(unit="patient", epsilon=2.0, delta=1e-6)
SPEC = run_spec("north", privacy=PRIVACY)  # its population is "patients"
TERMS = {"commitment": "ab" * 32, "unit": "patient", "units_low": 200, "units_high": 400}


def said(*, complete=True, **about):
    populations = (PopulationReport(name="patients", **about),) if about else ()
    return KnownSite(
        site="north", protocol=4, build="0", said_at=1.0, report=SiteReport(populations=populations, complete=complete)
    )


@pytest.mark.parametrize(
    ("known", "says"),
    [
        (None, "has never called the aggregator"),
        (said(), "has no population 'patients' in its policy"),
        (said(on_start=False), "has no data registered for population 'patients'"),
        (said(**TERMS | {"unit": "record"}), "protects each record of population 'patients', the run each patient"),
        (said(**TERMS | {"units_high": 200_000}), "a delta of 5.0e-07, the run asks for 1e-06"),
    ],
)
def test_what_the_site_would_decline_is_known_before(known, says):
    assert says in obstacle(SPEC, known)


@pytest.mark.parametrize(
    "known",
    [said(complete=False), said(commitment="ab" * 32), said(on_start=True), said(**TERMS)],
    ids=["keeps all to itself", "registered", "on start", "terms"],
)
def test_what_a_policy_keeps_to_itself_speaks_against_nothing(known):
    assert obstacle(SPEC, known) is None


def test_a_run_without_privacy_is_for_the_site_to_decline():
    assert obstacle(run_spec("north"), said(**TERMS)) is None
