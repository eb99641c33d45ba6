"""What a site tells the hub beforehand: the policy's words and the ledger's commitment, and nothing of the data."""

import pytest
import structlog

from deerfield.roster import PopulationReport
from deerfield.wire import limits
from services.client.custody import register
from services.client.custody.commitment import commitment, salt
from services.client.custody.ledger_file import NAME
from services.client.policy import Policy
from services.client.reporting import site_report

TERMS = {"unit": "patient", "units_low": 5, "units_high": 7}


def policy(folder, *names, **changes):
    """Populations of these names, each of a file of its own."""

    def population(name):
        path = folder / f"{name}.csv"
        path.write_text(f"patient,text,label\np1,of {name},x\n")
        return {"source": {"path": str(path), "patient": "patient"}, "epsilon": 8.0, **TERMS, **changes}

    return Policy.model_validate({"populations": {name: population(name) for name in names}, "models": {}})


def test_the_hub_is_told_no_more_than_the_policy_says(tmp_path):
    rules = policy(tmp_path, "notes")
    register.record("north", rules, "notes", tmp_path / "state")
    held = commitment(rules.populations["notes"].source, salt(tmp_path / "state"))
    (tmp_path / "notes.csv").unlink()  # whatever is there now, nobody looks
    told = {
        "nothing": (),
        "registered": (PopulationReport(name="notes", commitment=held),),
        "terms": (PopulationReport(name="notes", commitment=held, **TERMS),),
    }
    assert rules.populations["notes"].reports == "registered"
    for reports, expected in told.items():
        own = rules.populations["notes"].model_copy(update={"reports": reports})
        found = site_report(rules.model_copy(update={"populations": {"notes": own}}), tmp_path / "state")
        assert found.populations == expected
        assert found.complete == bool(expected)


def test_a_population_that_nobody_registered_says_so(tmp_path):
    (required,) = site_report(policy(tmp_path, "notes"), tmp_path / "state").populations
    (on_start,) = site_report(policy(tmp_path, "notes", registration="on_start"), tmp_path / "state").populations
    assert (required.registered, on_start.registered) == (False, True)
    assert required.commitment == on_start.commitment == ""
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("damage", ["not a ledger\n{}\n", None])
def test_a_ledger_that_cannot_be_used_is_left_out(tmp_path, damage):
    path = tmp_path / "state" / "ledgers" / "notes" / NAME
    path.parent.mkdir(parents=True)
    if damage is None:
        path.mkdir()
    else:
        path.write_text(damage)
    with structlog.testing.capture_logs() as lines:
        found = site_report(policy(tmp_path, "notes", "scans"), tmp_path / "state")
    assert ([each.name for each in found.populations], found.complete) == (["scans"], False)
    assert [line["population"] for line in lines] == ["notes"]


def test_more_populations_than_a_hello_takes_are_not_all_told(tmp_path):
    names = [f"p{number:03}" for number in range(limits.POPULATIONS + 1)]
    found = site_report(policy(tmp_path, *names), tmp_path / "state")
    assert [each.name for each in found.populations] == names[:-1]
    assert not found.complete
