"""Budgets over several whole runs: what `make test` shows on one run, to its end."""

import json

import pytest
import yaml

from deerfield.privacy import noise_multiplier
from tests.integration.federation import SITES, deerfield, result, write


def test_a_second_run_on_a_re_exported_copy_starts_from_what_the_first_has_spent_and_the_third_is_refused(tmp_path):
    file = write(tmp_path, strategy="head", privacy={"unit": "patient", "epsilon": 2.0, "delta": 1e-6})
    run = yaml.safe_load(file.read_text())
    run["embedded"]["budget"] = {"ledgers": "ledgers", "epsilon": 5.0, "delta": 1e-5}
    header, *rows = (tmp_path / "notes.csv").read_text().splitlines()
    (tmp_path / "export.csv").write_text("\n".join([header, *reversed(rows)]) + "\n")
    spent = []
    for number, copy in enumerate(("notes.csv", "export.csv", "export.csv")):
        run["embedded"]["source"]["path"] = copy
        file.write_text(yaml.safe_dump(run))
        planned = deerfield("plan", file, "--json")
        done = deerfield("run", file, "--out", tmp_path / f"out{number}")
        assert planned.returncode == (3 if number == 2 else 0), planned.stderr
        assert done.returncode == (1 if number == 2 else 0), done.stderr
        result = json.loads((tmp_path / f"out{number}/result.json").read_text())
        if number < 2:
            (total,) = {site["epsilon_total"] for site in result["sites"].values()}
            spent.append(total)
            assert total == pytest.approx(json.loads(planned.stdout)["sites"]["east"]["epsilon_after"])
    assert spent == pytest.approx([2.0, 4.0], rel=0.01)
    assert "BUDGET_EXHAUSTED" in result["reason"]
    for site in SITES:
        shown = json.loads(deerfield("ledger", "show", tmp_path / "ledgers" / site, "--json").stdout)
        kinds = [entry["kind"] for entry in shown["entries"]]
        assert (kinds.count("run"), kinds.count("task"), kinds.count("commit")) == (2, 2, 2)
        assert kinds.count("terms") == 1  # the copy is another file, of the same patients


def test_metrics_under_noise_reach_the_result_and_are_paid_from_the_budget_of_the_run(tmp_path):
    private = {"unit": "patient", "epsilon": 8.0, "delta": 1e-6}
    file = write(tmp_path, strategy="head", privacy=private, embedded={"metrics": "dp", "site_validation": 0.2})
    run = yaml.safe_load(file.read_text())
    run["embedded"]["budget"] = {"ledgers": "ledgers", "epsilon": 8.0, "delta": 1e-5}
    file.write_text(yaml.safe_dump(run))
    planned = deerfield("plan", file, "--json")
    assert planned.returncode == 0, planned.stderr
    done = deerfield("run", file, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out/result.json").read_text())
    for phase in result["rounds"]:
        assert set(phase["metrics"]) == {"accuracy", "f1"}
        assert all(0 <= value <= 1 for value in phase["metrics"].values())
    told = json.loads(planned.stdout)["sites"]["east"]
    shown = json.loads(deerfield("ledger", "show", tmp_path / "ledgers/east", "--json").stdout)
    charged = next(entry for entry in shown["entries"] if entry["kind"] == "run")
    assert 7.9 <= charged["epsilon"] == told["epsilon"] <= 8.0
    assert result["sites"]["east"]["epsilon"] == pytest.approx(charged["epsilon"], rel=1e-9)  # metrics included
    # a run of the same steps whose counts stay at home needs less noise for the same epsilon
    alone = noise_multiplier(8.0, 1e-6, told["sample_rate"], told["steps"])
    assert charged["noise_multiplier"] == told["noise_multiplier"] > alone
    assert deerfield("ledger", "verify", tmp_path / "ledgers/east").returncode == 0


def test_noise_differs_between_two_runs_of_one_seed_and_epsilon_is_what_was_asked_for(tmp_path):
    file = write(tmp_path, strategy="fedavg", privacy={"unit": "record", "epsilon": 4.0})
    for name in ("one", "two"):
        done = deerfield("run", file, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
    one, two = result(tmp_path / "one"), result(tmp_path / "two")
    assert one["adapter_sha256"] != two["adapter_sha256"]
    assert all(3.96 <= site["epsilon"] <= 4.0 for site in one["sites"].values())
    assert one["rounds"][0]["deviation"] > 1e-6
    assert one["rounds"][0]["metrics"] == {}
