"""A budget that outlives a run: what `deerfield plan` says, the run charges, and the ledger's commands show."""

import json
from pathlib import Path

import pytest
import yaml

from deerfield.proof import prove
from deerfield.runspec import RunSpec
from tests.integration.federation import SITES, deerfield, write


@pytest.mark.e2e
def test_the_plan_the_run_and_the_ledger_agree_and_the_next_run_is_refused(tmp_path):
    budget = {"ledgers": "ledgers", "epsilon": 5.0, "delta": 1e-5}
    file = write(tmp_path, strategy="fedavg", privacy={"unit": "patient", "epsilon": 4.0, "delta": 1e-6})
    run = yaml.safe_load(file.read_text())
    run["embedded"]["budget"] = budget
    file.write_text(yaml.safe_dump(run))

    planned = deerfield("plan", file, "--json")
    assert planned.returncode == 0, planned.stderr
    sites = json.loads(planned.stdout)["sites"]
    assert sorted(sites) == sorted(SITES)
    assert not (tmp_path / "ledgers").exists()  # nothing is kept of a plan

    done = deerfield("run", file, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out/result.json").read_text())
    for name, told in sites.items():
        shown = deerfield("ledger", "show", tmp_path / "ledgers" / name, "--json")
        ledger = json.loads(shown.stdout)
        charged = next(entry for entry in ledger["entries"] if entry["kind"] == "run")
        assert charged["noise_multiplier"] == told["noise_multiplier"]
        assert (charged["steps"], charged["sample_rate"]) == (told["steps"], told["sample_rate"])
        assert charged["epsilon"] == told["epsilon_after"] == told["epsilon"]
        assert (ledger["epsilon_left"], ledger["delta_left"]) == (told["epsilon_left"], told["delta_left"])
        assert sum(entry["steps"] for entry in ledger["entries"] if entry["kind"] == "task") == told["steps"]
    total = sum(phase["bytes_up"] for phase in result["rounds"])
    assert total == pytest.approx(sum(told["bytes_up"] for told in sites.values()), rel=0.2)  # frames around tensors

    assert_proven(tmp_path / "out", result)

    site = sorted(SITES)[0]
    verified = deerfield("ledger", "verify", tmp_path / "ledgers" / site)
    assert (verified.returncode, verified.stdout[:6]) == (0, "sound:"), verified.stdout
    policy = tmp_path / "out/sites" / site / "policy.yaml"
    again = deerfield("plan", file, "--policy", policy, "--state", tmp_path / "ledgers" / site)
    assert again.returncode == 3, again.stderr
    assert "this costs epsilon" in " ".join(again.stdout.split())


def assert_proven(out, result):
    """What the run left in MLflow is enough to verify what real ledgers were charged, and says where it comes from."""
    (run,) = [path.parent for path in out.rglob("run.json") if (path.parent / "ledger").is_dir()]
    spec = RunSpec.model_validate_json((run / "run.json").read_text())
    mirrors = [json.loads(path.read_text()) for path in sorted(Path(run / "ledger").iterdir())]
    proof = prove(mirrors, spec)
    assert (proof.verified, proof.findings, proof.notes) == (True, (), ())
    assert proof.epsilon == pytest.approx({name: site["epsilon"] for name, site in result["sites"].items()})
    assert proof.total == pytest.approx({name: site["epsilon_total"] for name, site in result["sites"].items()})
    lineage = json.loads((run / "lineage.json").read_text())
    assert (lineage["run_file"], lineage["base_digest"]) == (spec.sha256, spec.model.digest)
    assert sorted(lineage["commitments"]) == sorted(SITES)
    assert len(set(lineage["commitments"].values())) == len(SITES)
