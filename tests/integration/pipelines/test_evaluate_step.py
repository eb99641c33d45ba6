"""The evaluation step: tiny models in a real MLflow registry, scored by a real client process."""

import json

import numpy as np
import pytest

from deerfield import peft_folder
from deerfield.bootstrap import resample
from deerfield.errors import InvalidInput
from deerfield.fingerprint import fingerprint
from deerfield.metrics import metrics, statistics
from deerfield.runspec import Federation
from deerfield.tensors import digest
from pipelines.evaluation_document import summary
from pipelines.registry_reader import open_registry
from pipelines.steps.evaluate import evaluate, moved
from services.client import backbones, models
from services.client.evaluator import evaluate_folder
from services.client.scoring import Scorer
from tests import mlflow_server
from tests.integration import federation
from tests.integration.federation import SITES
from tests.unit.client import tiny

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # SQLAlchemy 2.1
NAME = "tiny"
NAMES = ["accuracy", "macro_auc", "macro_f1", "macro_precision", "macro_recall"]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A base model, 120 notes, and a registry: version 1 is the champion, version 2 another random adapter."""
    folder = tmp_path_factory.mktemp("hub")
    federation.write(folder)
    base = folder / "model"
    spec = tiny.spec("bert")
    model = spec.model.model_copy(update={"digest": backbones.digest(base), "base": "tiny/bert"})
    spec = spec.model_copy(update={"model": model, "federation": Federation(sites=SITES)})
    uri = mlflow_server.database(folder)
    shapes = models.load(base, spec).schema()
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        adapter = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        mlflow_server.add(uri, spec, adapter, f"run-{seed}")
        peft_folder.write(folder / f"adapter-{seed}", spec, adapter)
    client = mlflow_server.client(uri)
    client.set_registered_model_alias(NAME, "champion", "1")
    mlflow_run = client.get_model_version(NAME, "2").run_id
    for step, values in enumerate(
        ({"accuracy/east": 0.5, "f1/west": 0.4}, {"accuracy/east": 0.6, "epsilon/east": 1.0})
    ):
        for key, value in values.items():
            client.log_metric(mlflow_run, key, value, step=step)
    client.log_metric(mlflow_run, "evaluation/accuracy", 0.9)
    return folder, uri


@pytest.fixture(scope="module")
def evaluated(hub):
    """evaluation.json of version 2."""
    folder, uri = hub
    test_set = f"{{path: {folder / 'notes.csv'}, site: hospital, patient: patient}}"
    training = folder / "examples.sha256"
    training.write_text("".join(f"{fingerprint(str(number))}\n" for number in range(5)))
    evaluate(NAME, "2", uri, str(folder / "model"), test_set, folder / "out/evaluation.json", str(training))
    return json.loads((folder / "out/evaluation.json").read_text())


def scores_of(folder, version, trained=True):
    """Table and probabilities, by the client's code without a process."""
    from deerfield.runfile import Source
    from services.client import data
    from services.client.device import Device

    spec, adapter = peft_folder.read(folder / f"adapter-{version}")
    table = data.read(Source(path=str(folder / "notes.csv"), site="hospital", patient="patient"), spec.labels, "text")
    scorer = Scorer(Device(), table.examples)
    return table, scorer.score(spec, str(folder / "model"), adapter if trained else None)


def test_three_models_stand_with_what_they_scored(hub, evaluated):
    folder, _ = hub
    assert sorted(evaluated["models"]) == ["base", "candidate", "champion"]
    for name, version in (("candidate", "2"), ("champion", "1")):
        found = evaluated["models"][name]
        table, probabilities = scores_of(folder, version)
        expected = metrics(probabilities, table.examples.labels)
        assert sorted(found["metrics"]) == NAMES
        assert found["metrics"]["accuracy"]["value"] == pytest.approx(expected["accuracy"])
        assert found["metrics"]["macro_f1"]["value"] == pytest.approx(expected["f1"])
        assert all(each["low"] <= each["high"] for each in found["metrics"].values())
        assert found["version"] == version
        assert found["digest"] == digest(peft_folder.read(folder / f"adapter-{version}")[1])
        assert np.sum(found["confusion"]) == 120
        assert sum(each["examples"] for each in found["per_class"].values()) == 120
        assert sorted(found["roc"]) == sorted(tiny.LABELS)
    base = evaluated["models"]["base"]
    assert (base["version"], base["digest"]) == ("", backbones.digest(folder / "model"))
    assert base["metrics"]["macro_auc"] == {"value": 0.5, "low": 0.5, "high": 0.5}  # a linear head that knows nothing


def test_differences_are_paired_over_patients(hub, evaluated):
    folder, _ = hub
    judges, patients = {}, None
    for name, version in (("candidate", "2"), ("champion", "1")):
        table, probabilities = scores_of(folder, version)
        judges[name] = statistics(probabilities, table.examples.labels)
        patients = table.examples.units
    found = resample(judges, np.char.add(np.char.add(table.sites, "/"), patients), seed=0)
    expected = found["candidate"].minus(found["champion"]).interval("f1")
    difference = evaluated["differences"]["champion"]["macro_f1"]
    assert (difference["value"], difference["low"], difference["high"]) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )
    assert sorted(evaluated["differences"]) == ["base", "champion"]


def test_sites_stand_apart_and_with_their_own_reports(hub, evaluated):
    folder, _ = hub
    table, probabilities = scores_of(folder, "2")
    assert {site: each["examples"] for site, each in evaluated["by_site"].items()} == dict.fromkeys(SITES, 40)
    rows = table.sites == "north"
    expected = metrics(probabilities[rows], table.examples.labels[rows])["f1"]
    assert evaluated["by_site"]["north"]["metrics"]["macro_f1"]["value"] == pytest.approx(expected)
    assert evaluated["models"]["candidate"]["by_site"] == evaluated["by_site"]
    assert sorted(evaluated["models"]["champion"]["by_site"]) == sorted(SITES)
    assert evaluated["reported"] == {"east": {"accuracy": 0.6}, "west": {"macro_f1": 0.4}}


def test_the_rest_says_what_was_done(hub, evaluated):
    folder, _ = hub
    assert evaluated["test_set"]["examples"] == 120
    assert evaluated["test_set"]["source"] == str(folder / "notes.csv")
    assert evaluated["leakage"] == {"checked": 5, "overlap": 0}
    assert (evaluated["schema"], evaluated["primary"], evaluated["labels"]) == (1, "macro_f1", list(tiny.LABELS))
    assert (evaluated["confidence"], evaluated["resamples"], evaluated["notes"]) == (0.95, 2000, [])
    lines = summary(evaluated)
    assert lines[0] == "120 test examples; intervals of 95% from 2000 resamples"
    assert any(line.startswith("macro_f1 of champion (version 1): 0.") for line in lines)


def test_a_first_version_is_compared_with_the_base_alone_and_one_label_has_no_auc(hub, tmp_path, capsys):
    folder, uri = hub
    lines = (folder / "notes.csv").read_text().splitlines()
    (tmp_path / "one.csv").write_text("\n".join([lines[0], *(line for line in lines if ",fever," in line)]) + "\n")
    client = mlflow_server.client(uri)
    client.delete_registered_model_alias(NAME, "champion")
    try:
        arguments = (str(folder / "model"), str(tmp_path / "one.csv"), tmp_path / "evaluation.json")
        evaluate(NAME, "1", uri, *arguments)
    finally:
        client.set_registered_model_alias(NAME, "champion", "1")
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert sorted(found["models"]) == ["base", "candidate"]
    assert sorted(found["differences"]) == ["base"]
    assert found["models"]["candidate"]["metrics"]["macro_auc"] == {"value": None, "low": None, "high": None}
    assert found["models"]["candidate"]["roc"] == dict.fromkeys(tiny.LABELS)
    assert (found["by_site"], found["leakage"]["checked"]) == ({}, 0)
    assert "every example of the test set has the label fever" in capsys.readouterr().out


def test_a_test_set_that_was_trained_on_is_refused_in_the_words_of_the_client(hub, tmp_path):
    folder, uri = hub
    text = (folder / "notes.csv").read_text().splitlines()[3].split(",")[3]
    (tmp_path / "seen").write_text(f"{fingerprint(text.upper())}\n")
    with pytest.raises(InvalidInput, match=r"test examples are among the 1 training examples of .*seen"):
        evaluate(
            NAME, "2", uri, str(folder / "model"), str(folder / "notes.csv"), tmp_path / "e", str(tmp_path / "seen")
        )
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": "9"}, "find version 9 of tiny: it is not there"),
        ({"model": "other"}, "find version 2 of other: it is not there"),
        ({"tracking": "sqlite:////no/where.db"}, "/no/where.db is not there"),
        ({"test_set": "{path: x, column: y}"}, "the test set: unknown key 'column'"),
        ({"test_set": "label: y"}, "the test set: path is missing"),
        ({"training": "/no/file"}, "/no/file, the fingerprints of the training data, cannot be read"),
    ],
)
def test_what_is_not_there_is_said_before_anything_is_scored(hub, tmp_path, changes, words):
    _, uri = hub
    given = {"model": NAME, "version": "2", "tracking": uri, "base": "", "test_set": "x", "training": ""} | changes
    with pytest.raises(InvalidInput, match=words):
        evaluate(**given, out=tmp_path / "evaluation.json")


def test_a_champion_that_is_deleted_or_replaced_underneath_is_said_to_be(hub, tmp_path):
    _, uri = hub
    registry, client = open_registry(uri), mlflow_server.client(uri)
    champion = registry.champion(NAME)
    assert moved(registry, champion) is None
    client.set_registered_model_alias(NAME, "champion", "2")
    assert "deleted or replaced meanwhile: it is version 2 now; evaluate again" in str(moved(registry, champion))
    client.delete_registered_model_alias(NAME, "champion")
    assert "there is none now" in str(moved(registry, champion))
    client.set_registered_model_alias(NAME, "champion", "1")


def test_the_metrics_of_one_folder_are_the_same(hub, evaluated):
    from deerfield.runfile import Source

    folder, _ = hub
    alone = evaluate_folder(folder / "adapter-2", Source(path=str(folder / "notes.csv")), str(folder / "model"))
    assert evaluated["models"]["candidate"]["metrics"]["macro_auc"]["value"] == pytest.approx(alone["metrics"]["auc"])
