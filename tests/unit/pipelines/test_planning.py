"""`deerfield plan` for one hospital: its policy, its ledger, and no data."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from deerfield import durable, keyfile
from deerfield.errors import LedgerBehind
from deerfield.ledger.account import Account, fold
from deerfield.ledger.chain import first_damage, lines_of
from deerfield.record import encode
from deerfield.runfile import load_spec
from pipelines.embedded import planning
from services.client import policy
from services.client.custody import custody, run_account
from services.client.custody.ledger_file import NAME, Ledger
from services.client.custody.operator import plan_sites
from tests.command import deerfield
from tests.ledger_command import record_of, state
from tests.ledgers import TERMS, key, plan

RUN = {
    "name": "run",
    "strategy": "deer",
    "rounds": 2,
    "population": "lungs",
    "labels": ["no", "yes"],
    "model": {"base": "any/base", "input": "text"},
    "privacy": {"unit": "patient", "epsilon": 3.0, "delta": 1e-6},
}
LUNGS = {
    "source": {"path": "nowhere.csv", "patient": "patient"},
    "unit": "patient",
    "epsilon": 8.0,
    "delta": 1e-5,
    "units_low": 800,
    "units_high": 1000,
    "validation": 0.1,
}


def write(folder: Path, population=(), run=(), **rules) -> tuple[Path, ...]:
    """(run file, policy)"""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "run.yaml", folder / "policy.yaml"
    paths[0].write_text(yaml.safe_dump({**RUN, **dict(run)}))
    whole = {"federation": "north", "models": {}, **rules, "populations": {"lungs": {**LUNGS, **dict(population)}}}
    paths[1].write_text(yaml.safe_dump(whole))
    return paths


def account(folder: Path) -> Account:
    entries, damage = first_damage(lines_of((folder / "ledgers" / "lungs" / NAME).read_bytes()))
    assert damage is None
    return fold(entries)


def answered(folder: Path, site: Path | None = None, **changes):
    """What the site's own code plans, by the files of `write`."""
    run, rules = write(folder, **changes)
    request = {"spec": load_spec(run).model_dump(mode="json"), "sites": {"alpha": {"policy": rules, "state": site}}}
    return plan_sites(request)["alpha"]


def reserved(folder: Path, site: Path, **changes):
    """What the site's own gate then charges for the run, or the refusal that it raises."""
    run, rules = write(folder, **changes)
    loaded, spec = policy.load(rules), load_spec(run)
    with registered(site, **changes.get("population", {})) as ledger:
        if loaded.metrics == "clear":
            ledger.make_infinite("metrics: clear")
        return ledger.reserve_run(run_account.run_plan("the-run", 0, spec, loaded, loaded.population(spec)))


def registered(site: Path, **changes) -> Ledger:
    return Ledger.open(
        site / "ledgers" / "lungs",
        keyfile.load(site / keyfile.SITE),
        replace(TERMS, commitment="of the data", **changes),
    )


@pytest.mark.parametrize("population", [{}, {"filter": "renyi", "order": 8.0}])
@pytest.mark.parametrize("changes", [{}, {"metrics": "dp"}, {"metrics": "clear"}])
def test_a_plan_says_what_the_site_then_charges(tmp_path, population, changes):
    site = tmp_path / "state"
    told = answered(tmp_path, population=population, **changes)
    charge = reserved(tmp_path, site, population=population, **changes)
    assert (told["fits"], told["entries"], told["epsilon_before"]) == (True, 0, 0.0)
    assert (told["steps"], told["sample_rate"]) == (charge.plan.steps, charge.plan.sample_rate)
    assert told["noise_multiplier"] == charge.plan.noise_multiplier
    assert told["epsilon"] == charge.epsilon
    if not population and changes.get("metrics") != "clear":
        assert told["epsilon_after"] == pytest.approx(charge.epsilon_after)
    if changes.get("metrics") == "clear":
        assert told["epsilon_after"] == "infinity"


EVALUATE = {"strategy": {"name": "evaluate", "candidate": "c" * 64}}


@pytest.mark.parametrize("population", [{}, {"filter": "renyi", "order": 8.0}])
def test_a_run_that_trains_nothing_is_planned_at_what_the_sites_report(tmp_path, population, capsys):
    changes = {"population": population, "run": EVALUATE, "metrics": "dp"}
    told = answered(tmp_path, **changes)
    charge = reserved(tmp_path, tmp_path / "state", **changes)
    assert (told["fits"], told["steps"], told["epsilon"]) == (True, 0, charge.epsilon)
    assert told["epsilon_after"] == pytest.approx(charge.epsilon_after)
    assert 0 < charge.epsilon < 1
    spec = load_spec(tmp_path / "run.yaml")
    assert planning.show(planning.Planned(spec=spec, sites={"alpha": told}, kept=True), as_json=False)
    assert "nothing is trained: 2 models are scored, under the noise" in capsys.readouterr().out


def test_a_run_that_trains_nothing_is_refused_where_nothing_may_be_said_or_it_costs_too_much(tmp_path):
    assert "needs `metrics: dp`" in answered(tmp_path, run=EVALUATE)["refusal"]
    cheap = {**EVALUATE, "privacy": {"unit": "patient", "epsilon": 0.1}}
    assert "ask for a run with a larger epsilon" in answered(tmp_path, run=cheap, metrics="dp")["refusal"]


def test_a_plan_starts_from_what_the_ledger_has_spent(tmp_path):
    site = tmp_path / "state"
    reserved(tmp_path, site)
    told = answered(tmp_path, site)
    spent = account(site).epsilon
    assert told["epsilon_before"] == spent > 2.9
    assert told["epsilon_after"] == pytest.approx(2 * spent)
    assert told["epsilon_left"] == pytest.approx(8 - 2 * spent)
    assert told["site"] == "alpha"


def test_the_command_exits_3_where_the_site_would_refuse_and_says_why_once(tmp_path):
    run, rules = write(tmp_path, population={"epsilon": 4.0})
    site = tmp_path / "state"
    fine = deerfield("plan", run, "--policy", rules)
    assert fine[0] == 0
    assert "2.99 of 4" not in fine[1]
    reserved(tmp_path, site, population={"epsilon": 4.0})
    code, said = deerfield("plan", run, "--policy", rules, "--state", site)
    assert code == 3
    assert "refused alpha: this costs epsilon 2.99" in said
    code, said = deerfield("plan", run, "--policy", rules, "--state", site, "--json")
    told = json.loads(said)
    assert (code, told["fits"], told["sites"]["alpha"]["fits"]) == (3, False, False)
    assert "is left" in told["sites"]["alpha"]["refusal"]


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"population": {"unit": "record"}}, "privacy unit is 'patient'"),
        ({"strategies": ["head"]}, "strategy 'deer' is not allowed"),
        ({"run": {"population": "hearts"}}, "'hearts' is not in this site's policy"),
        ({"run": {"privacy": {"unit": "none"}}}, "unprotected: true"),
        ({"run": {"federation": {"lifetime_epsilon": 5.0}}}, "the consortium requires"),
    ],
)
def test_what_the_policy_refuses_is_a_refusal_and_no_error(tmp_path, changes, part):
    told = answered(tmp_path, **changes)
    assert (told["fits"], told["steps"]) == (False, None)
    assert part in told["refusal"]


def test_a_population_that_changed_its_filter_or_fell_behind_is_refused(tmp_path):
    site = state(tmp_path / "state")
    with Ledger.open(site / "ledgers" / "lungs", keyfile.load(site / keyfile.SITE), TERMS) as ledger:
        ledger.reserve_run(plan("r2"))
    told = answered(tmp_path, site, population={"filter": "renyi", "order": 8.0})
    assert "filter: sum" in told["refusal"]
    durable.replaced(site / "records" / "lungs.json", encode(record_of(site, ledger_head="ab" * 32)))
    assert "deerfield ledger reconcile" in answered(tmp_path, site)["refusal"]


def test_a_population_that_nobody_registered_is_refused_once_there_is_a_site(tmp_path):
    site = state(tmp_path / "state")
    told = answered(tmp_path, site)
    assert (told["fits"], told["steps"] > 0) == (False, True)
    assert "deerfield register" in told["refusal"]
    assert answered(tmp_path)["fits"]
    assert answered(tmp_path, site, population={"registration": "on_start"})["fits"]


def test_a_torn_last_line_plays_no_part(tmp_path):
    site = state(tmp_path / "state")
    path = site / "ledgers" / "lungs" / NAME
    path.write_bytes(path.read_bytes()[:-30])
    assert answered(tmp_path, site)["entries"] == 6


def test_what_a_person_wrote_wrong_is_one_sentence_and_exit_code_2(tmp_path):
    run, rules = write(tmp_path)
    cases = {
        (tmp_path / "nowhere.yaml", "--policy", rules): "cannot be read",
        (run, "--policy", tmp_path / "nowhere.yaml"): "it ought to be a policy",
        (run, "--policy", rules, "--state", tmp_path / "nowhere"): "there is no such folder",
        (run, "--state", tmp_path): "with --policy",
        (run,): "embedded is missing",
    }
    for arguments, part in cases.items():
        code, said = deerfield("plan", *arguments)
        assert (code, part in said, "\n" in said) == (2, True, False), said


def test_planning_needs_no_torch(tmp_path):
    code = "import sys, services.client.custody.operator; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_site_that_is_behind_keeps_the_record_that_says_so(tmp_path):
    run, rules = write(tmp_path)
    site = tmp_path / "state"
    with custody.Custody("alpha", policy.load(rules), site) as held, registered(site) as ledger:
        account = run_account.RunAccount(
            site="alpha", key=held.key, folder=site, vault=held.vault, in_the_clear=False,
            spec=load_spec(run), ledger=ledger, plan=plan("the-run"),
        )  # fmt: skip
        ledger.reserve_run(account.plan)
        seen = record_of(site)
        account.check_head(seen)
        assert not (site / "records").exists()
        newer = record_of(site, ledger_sequence=seen.sequence + 3, ledger_head="ab" * 32, epsilon_after=5.0)
        newest = record_of(site, ledger_sequence=seen.sequence + 4, ledger_head="cd" * 32, epsilon_after=6.0)
        for record in (newer, newest):
            with pytest.raises(LedgerBehind, match="reconcile"):
                account.check_head(record)
            assert (site / "records" / "lungs.json").read_bytes() == encode(record)
    answers = ("--operator", "Ada", "--reason", "restored", "--yes")
    assert deerfield("ledger", "reconcile", site, *answers)[0] == 0
    with custody.Custody("alpha", policy.load(rules), site), registered(site) as ledger:
        replace(account, ledger=ledger).check_head(record)  # answered
        assert ledger.account.epsilon == pytest.approx(6.0)
        ledger.reserve_task(key(run="the-run"), 8)
