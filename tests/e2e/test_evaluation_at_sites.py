"""`deerfield pipelines run-local --evaluate-at-sites`: the sites that have trained a model score it before the gate."""

import json

import yaml

from tests.integration.federation import SITES
from tests.integration.local_pipeline import run_file, run_local

RULES = {
    "minimum": 0.3,
    "bound": "value",
    "worst_site": {"minimum": 0.01},
    "epsilon": {"run": 400, "lifetime": 1000},
    "test_set": {"minimum": 20},
}


def test_the_sites_of_a_pipeline_score_its_candidate_and_their_ledgers_say_so(tmp_path):
    budget = {"ledgers": "ledgers", "epsilon": 1000, "delta": 1e-5}
    embedded = {"metrics": "dp", "site_validation": 0.4, "budget": budget}
    path, rules, out = run_file(tmp_path, embedded=embedded), tmp_path / "gate.yaml", tmp_path / "out"
    rules.write_text(yaml.safe_dump(RULES))
    done = run_local(path, "--rules", rules, "--out", out, "--evaluate-at-sites", "2")
    assert done.returncode == 0, done.stdout + done.stderr

    evaluation = json.loads((out / "evaluation.json").read_text())
    for name in ("candidate", "base"):
        assert sorted(evaluation["models"][name]["reported"]) == sorted(SITES)
    assert evaluation["reported"] == evaluation["models"]["candidate"]["reported"]
    assert "What the sites measure of each model" in (out / "report.html").read_text()
    for site in SITES:
        lines = (tmp_path / "ledgers" / site / "ledgers" / "notes" / "ledger.jsonl").read_text().splitlines()
        runs = [each["detail"] for each in map(json.loads, lines) if each["kind"] == "run"]
        assert [each["steps"] > 0 for each in runs] == [True, False]
        assert 0 < runs[1]["epsilon"] <= 2
