"""What a site's model and data may say, and where their draws come from."""

from math import inf

import numpy as np
import pytest

from deerfield.link import Assignment
from deerfield.randomness import SeededRandomness, SystemRandomness
from deerfield.strategy import FitReport
from deerfield.types import Spend, Task
from services.client.policy import Policy
from services.client.workbench import TorchWorkbench, system_or_seed
from tests.unit.client import tiny

TASK = Task(round=0, phase=1, factors="B", epochs=1, start={})
POPULATION = {"source": {"path": "notes.csv"}, "unit": "record", "epsilon": 20, "units_low": 2, "units_high": 20}


def policy(**changes):
    return Policy.model_validate({"populations": {"p": POPULATION}, "models": {}, **changes})


def test_a_guarantee_draws_from_the_system_and_from_no_seed():
    drawn = [system_or_seed(tiny.spec("bert"), "north", TASK) for _ in range(2)]
    assert all(isinstance(each, SystemRandomness) for pair in drawn for each in pair)
    (sampling, noise), (again, _) = drawn
    assert not np.array_equal(sampling.uniform(8), again.uniform(8))
    assert not np.array_equal(sampling.uniform(8), noise.uniform(8))


def test_without_a_guarantee_the_runs_seed_repeats_the_draws_of_each_task_and_site():
    spec = tiny.spec("bert", privacy={"unit": "none"})
    (sampling, noise), (again, _), (elsewhere, _) = (
        system_or_seed(spec, site, TASK) for site in ("north", "north", "south")
    )
    assert all(isinstance(each, SeededRandomness) for each in (sampling, noise))
    first = sampling.uniform(8)
    assert np.array_equal(first, again.uniform(8))
    assert not np.array_equal(first, elsewhere.uniform(8))
    assert not np.array_equal(first, noise.uniform(8))


@pytest.mark.parametrize(
    ("metrics", "unit", "leaves"), [("clear", "none", True), ("none", "none", False), ("clear", "record", True)]
)
def test_a_loss_leaves_only_where_the_policy_lets_it(tmp_path, saved, metrics, unit, leaves):
    (tmp_path / "notes.csv").write_text("text,label\n" + "".join(f"fever {i},fever\n" for i in range(9)))
    spec = tiny.spec("bert", privacy={"unit": unit, **({"epsilon": 8.0} if unit == "record" else {})})
    rules = policy(metrics=metrics, populations={"p": {**POPULATION, "source": {"path": str(tmp_path / "notes.csv")}}})
    bench = TorchWorkbench(
        site="north", spec=spec, policy=rules, population=rules.populations["p"],
        classifier=tiny.build("bert", saved("bert")), split_key=b"secret",
    )  # fmt: skip
    assert bench.metrics() == {}
    trainer = bench.trainer(TASK, Spend(unit=unit, noise_multiplier=0, sample_rate=0.5, steps=8, clip=inf), print)
    trainer.reports.append(FitReport(steps=8, loss=0.5))
    assert bench.metrics() == ({"loss": 0.5} if leaves else {})


def test_under_unit_site_a_site_trains_without_noise_or_clip_over_the_examples_that_it_has(tmp_path, saved):
    (tmp_path / "notes.csv").write_text("text,label\n" + "".join(f"fever {i},fever\n" for i in range(9)))
    spec = tiny.spec("bert", privacy={"unit": "site", "epsilon": 8.0, "clip": 0.5, "sample_rate": 0.5})
    site = {**POPULATION, "unit": "site", "units_low": 1, "units_high": 1}
    rules = policy(populations={"p": {**site, "source": {"path": str(tmp_path / "notes.csv")}}})
    bench = TorchWorkbench(
        site="north", spec=spec, policy=rules, population=rules.populations["p"],
        classifier=tiny.build("bert", saved("bert")), split_key=b"secret",
    )  # fmt: skip
    charged = Spend(unit="site", noise_multiplier=9.0, sample_rate=1.0, steps=1, clip=0.5)
    mechanism = bench.trainer(TASK, charged, print).mechanism
    trained = mechanism.spend
    assert (trained.noise_multiplier, trained.sample_rate, trained.steps, trained.clip) == (0.0, 0.5, 2, inf)
    assert mechanism.denominator == 0.5 * 9
    assert isinstance(mechanism.sampling, SystemRandomness)


def test_one_bad_record_does_not_decide_whether_a_site_answers(tmp_path, saved):
    (tmp_path / "notes.csv").write_text("text,label\nfever,fever\n,rash\nrash,plague\nrash,rash\n")
    spec = tiny.spec("bert")
    population = {**POPULATION, "source": {"path": str(tmp_path / "notes.csv")}}
    rules = policy(populations={"p": population})
    classifier = tiny.build("bert", saved("bert"))
    bench = TorchWorkbench(
        site="north",
        spec=spec,
        policy=rules,
        population=rules.populations["p"],
        classifier=classifier,
        split_key=b"secret",
    )
    bench.check(Assignment(run="r", incarnation=1, spec=spec, task=TASK, base="0" * 64), print)
    spend = Spend(unit="record", noise_multiplier=1, sample_rate=0.5, steps=8, clip=1.0)
    trainer = bench.trainer(TASK, spend, lambda done, of: None)
    assert trainer.score(split="train").labels.tolist() == [1, 2]


@pytest.mark.parametrize("unit", ["record", "patient"])
@pytest.mark.parametrize("count", [3, 16])
def test_a_step_is_divided_by_what_the_policy_promises_however_many_there_are(tmp_path, saved, unit, count):
    (tmp_path / "notes.csv").write_text(
        "patient,text,label\n" + "".join(f"patient{i},fever,fever\n" for i in range(count))
    )
    source = {"path": str(tmp_path / "notes.csv"), "patient": "patient"}
    rules = policy(populations={"p": {**POPULATION, "source": source, "unit": unit, "units_low": 7}})
    bench = TorchWorkbench(
        site="north", spec=tiny.spec("bert", privacy={"unit": unit, "epsilon": 8.0}), policy=rules,
        population=rules.populations["p"], classifier=tiny.build("bert", saved("bert")), split_key=b"secret",
    )  # fmt: skip
    spend = Spend(unit=unit, noise_multiplier=1, sample_rate=0.5, steps=8, clip=1.0)
    mechanism = bench.trainer(TASK, spend, print).mechanism
    assert mechanism.denominator == 0.5 * 7
    assert mechanism.spend == spend


def test_counts_of_the_same_examples_have_other_noise_each_time(tmp_path, saved):
    rows = [f"patient{i},fever,{tiny.LABELS[i % 3]}" for i in range(60)]
    (tmp_path / "notes.csv").write_text("patient,text,label\n" + "\n".join(rows) + "\n")
    found = []
    for _ in range(2):
        bench = _validating({"path": str(tmp_path / "notes.csv"), "patient": "patient"}, saved("bert"), noise=0.1)
        for _ in range(2):  # the noise of a task is no more to be foreseen than that of a site
            bench.trainer(TASK, Spend(unit="patient", noise_multiplier=1, sample_rate=0.5, steps=8, clip=1.0), print)
            found.append(bench.metrics()["accuracy"])
    assert len(set(found)) == 4


def test_who_is_kept_out_of_training_is_decided_by_the_secret_and_each_patient_alone(tmp_path, saved):
    rows = [f"patient{i % 30},fever {i},fever" for i in range(60)]
    scored = []
    for name, kept in (("all", rows), ("without", [row for row in rows if not row.startswith("patient7,")])):
        (tmp_path / f"{name}.csv").write_text("patient,text,label\n" + "\n".join(kept) + "\n")
        source = {"path": str(tmp_path / f"{name}.csv"), "patient": "patient"}
        bench = _validating(source, saved("bert"))
        bench.trainer(TASK, Spend(unit="patient", noise_multiplier=1, sample_rate=0.5, steps=8, clip=1.0), print)
        train, validation = bench._splits
        scored.append((len(train), len(validation)))
        assert set(bench.metrics()) == {"accuracy", "f1"}
    (train, held), (train_without, held_without) = scored
    assert 0 < held < train
    assert (train - train_without, held - held_without) in ((2, 0), (0, 2))


def _validating(source, folder, noise=10.0):
    classifier = tiny.build("bert", folder)
    spec = tiny.spec("bert", privacy={"unit": "patient", "epsilon": 8.0})
    population = {**POPULATION, "source": source, "unit": "patient", "validation": 0.3}
    rules = policy(metrics="dp", populations={"p": population}, dp_metrics={"noise_multiplier": noise})
    return TorchWorkbench(
        site="north", spec=spec, policy=rules, population=rules.populations["p"], classifier=classifier,
        split_key=b"secret",
    )  # fmt: skip
