"""The partition step where the data are the hospitals': what their sites report is held against the run, and kept."""

import json

import pytest

from deerfield.errors import InvalidInput, Unreachable
from deerfield.roster import PopulationReport, SiteReport
from deerfield.wire.backoff import Backoff
from pipelines.steps.partition import partition
from pipelines.steps.reach import runs_at
from tests.fakes import Clock
from tests.integration.aggregator.conftest import open_aggregator, served

COMMITMENT = "ab" * 32
TERMS = {"unit": "patient", "units_low": 200, "units_high": 400}
REGISTERED = PopulationReport(name="notes", commitment=COMMITMENT)
UNREGISTERED = PopulationReport(name="notes")
RUN = {
    "name": "notes",
    "population": "notes",
    "labels": ["a", "b"],
    "model": {"base": "tiny", "input": "text", "digest": "0" * 64},
    "privacy": {"unit": "patient", "epsilon": 2.0},
    "federation": {"sites": ["east", "north", "west"], "quorum": 2},
    "adapter": {"head.weight": [2, 4], "head.bias": [2]},
}


def reports(*populations, complete=True):
    return SiteReport(populations=populations, complete=complete)


@pytest.fixture
def hub(tmp_path):
    """Runs the step at an aggregator to which these sites have said this; answers the manifest."""
    aggregator = open_aggregator(tmp_path / "aggregator", Clock())
    with served(aggregator) as server:

        def step(said, **changes):
            for site, report in said.items():
                server.site(site).hello(report)
            run, out = json.dumps({**RUN, **changes}), tmp_path / "manifest.json"
            partition(run, "", server.ports.listening, out, tmp_path / "page.html")
            return json.loads(out.read_text())

        yield step
    aggregator.desk.store.close()


def test_the_manifest_has_what_the_policies_let_out_and_no_more(hub, tmp_path, capsys):
    said = {
        "east": reports(PopulationReport(name="notes", commitment=COMMITMENT, **TERMS), PopulationReport(name="scans")),
        "north": reports(REGISTERED),
        "west": reports(complete=False),
    }
    found = hub(said)
    about = {"schema": 1, "kind": "consortium", "source": "", "seed": 0, "labels": ["a", "b"]}
    assert {name: value for name, value in found.items() if name != "sites"} == about
    own = {
        site: {key: value for key, value in each.items() if key not in ("build", "protocol", "said")}
        for site, each in found["sites"].items()
    }
    kept = {"registered": True, "commitment": COMMITMENT}
    assert own == {"east": kept | TERMS, "north": kept, "west": {}}
    assert all(each["protocol"] for each in found["sites"].values())
    assert "scans" not in json.dumps(found)  # a population that the run does not name
    lines = capsys.readouterr().out
    assert "west's policy does not let it say whether it has population 'notes'" in lines
    assert "warning" not in lines
    page = (tmp_path / "page.html").read_text()
    assert "stay at the sites" in page
    assert "at least 200" in page


def test_a_quorum_without_a_site_goes_on_with_a_warning(hub, capsys):
    found = hub({"east": reports(REGISTERED), "north": reports(REGISTERED)})
    assert found["sites"]["west"] == {}
    assert "warning: west has never called the aggregator" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({}, "3 of 3 sites would not take part, and a phase needs 2: east has never called"),
        ({"east": reports(REGISTERED), "north": reports()}, "north has no population 'notes' in its policy; west"),
        ({"east": reports(REGISTERED), "north": reports(UNREGISTERED)}, "north has no data registered"),
        (
            {site: reports(PopulationReport(name="notes", on_start=True, **TERMS | {"unit": "record"}))
             for site in RUN["federation"]["sites"]},
            "west protects each record of population 'notes', the run each patient",
        ),
    ],
    ids=["never seen", "another population", "not registered", "another unit"],
)  # fmt: skip
def test_a_run_that_too_few_sites_would_take_part_in_is_one_sentence_that_names_them(hub, tmp_path, said, says):
    with pytest.raises(InvalidInput) as refused:
        hub(said)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "manifest.json").exists()


def test_an_aggregator_that_nobody_named_and_one_that_is_not_there(tmp_path):
    with pytest.raises(InvalidInput, match="aggregator is empty and DEERFIELD_AGGREGATOR is not set"):
        partition(json.dumps(RUN), "", "", tmp_path / "manifest.json", tmp_path / "page.html")
    quick = Backoff(first_s=0.01, last_s=0.02, patience_s=0.1)
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"), runs_at("127.0.0.1:9", quick) as runs:
        list(runs.sites())
