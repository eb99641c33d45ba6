"""The evaluation step: tiny models in a real MLflow registry, scored by a real client process."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from deerfield import peft_folder
from deerfield.bootstrap import resample
from deerfield.errors import InvalidInput
from deerfield.fingerprint import fingerprint
from deerfield.metrics import metrics, statistics
from deerfield.runfile import load
from deerfield.runspec import Federation
from deerfield.tensors import digest
from pipelines.evaluation.evaluation_document import summary
from pipelines.registry.reader import open_registry
from pipelines.steps.evaluate import evaluate, moved
from pipelines.steps.partition import partition
from services.client.evaluation.evaluator import evaluate_folder
from services.client.evaluation.scoring import Scorer
from services.client.training import backbones, models
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
    manifest = manifest_in(folder, example_sha256=str(training))
    evaluate(NAME, "2", uri, str(folder / "model"), test_set, folder / "out/evaluation.json", manifest)
    return json.loads((folder / "out/evaluation.json").read_text())


def manifest_in(folder, **keys):
    """A manifest of hub-owned data with these keys."""
    path = folder / "manifest.json"
    path.write_text(json.dumps({"schema": 1, "kind": "simulation", "sites": {}} | keys))
    return path


def scores_of(folder, version, trained=True):
    """Table and probabilities, by the client's code without a process."""
    from deerfield.runfile import Source
    from services.client.sources import data
    from services.client.training.device import Device

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


def test_a_test_set_that_was_trained_on_is_refused_in_the_words_of_the_client(hub, tmp_path):
    folder, uri = hub
    text = (folder / "notes.csv").read_text().splitlines()[3].split(",")[3]
    (tmp_path / "seen").write_text(f"{fingerprint(text.upper())}\n")
    manifest = manifest_in(tmp_path, example_sha256=str(tmp_path / "seen"))
    with pytest.raises(InvalidInput, match=r"test examples are among the 1 training examples of .*seen"):
        evaluate(NAME, "2", uri, str(folder / "model"), str(folder / "notes.csv"), tmp_path / "e", manifest)
    assert not (tmp_path / "e").exists()


def test_a_first_version_has_no_champion_beside_it_and_a_partition_brings_its_test_set(hub, tmp_path, capsys):
    """The partition step left out of it what the sites train on too."""
    folder, uri = hub
    text = yaml.safe_dump(load(folder / "run.yaml").model_dump(mode="json"))
    partition(text, str(tmp_path / "parts"), "", tmp_path / "manifest.json", tmp_path / "page.html")
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    client = mlflow_server.client(uri)
    client.delete_registered_model_alias(NAME, "champion")
    try:
        evaluate(NAME, "2", uri, str(folder / "model"), "", tmp_path / "e.json", tmp_path / "manifest.json")
    finally:
        client.set_registered_model_alias(NAME, "champion", "1")
    found = json.loads((tmp_path / "e.json").read_text())
    assert found["test_set"] == {
        "source": manifest["test"]["part"],
        "sha256": manifest["test"]["sha256"],
        "examples": manifest["test"]["examples"],
    }
    assert sorted(found["models"]) == ["base", "candidate"]
    assert sorted(found["differences"]) == ["base"]
    assert found["leakage"]["checked"] == sum(part["examples"] for part in manifest["sites"].values())
    assert sorted(found["by_site"]) == sorted(SITES)
    assert "macro_f1 of candidate (version 2): 0." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": "9"}, "find version 9 of tiny: it is not there"),
        ({"model": "other"}, "find version 2 of other: it is not there"),
        ({"tracking": "sqlite:////no/where.db"}, "/no/where.db is not there"),
        ({"test_set": "{path: x, column: y}"}, "the test set: unknown key 'column'"),
        ({"test_set": "label: y"}, "the test set: path is missing"),
        ({"test_set": ""}, "no test set is given, and the partition has none"),
        (
            {"manifest": Path("/no/manifest.json")},
            "/no/manifest.json cannot be read: No such file or directory; it ought to be the manifest of a partition",
        ),
    ],
)
def test_what_is_not_there_is_said_before_anything_is_scored(hub, tmp_path, changes, words):
    _, uri = hub
    given = {"model": NAME, "version": "2", "tracking": uri, "base": "", "test_set": "x", "manifest": None} | changes
    with pytest.raises(InvalidInput, match=words):
        evaluate(**given, out=tmp_path / "evaluation.json")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"test": {"sha256": "0" * 64}}, "the manifest does not say where its test set is (test: part)"),
        ({"test": {"rows": "rows/test.npy"}}, "rows (rows/test.npy beside the manifest)"),
        ({"test": {"sha256": "0"}}, "manifest.json: test.sha256 is '0'"),
        ({"test": {"part": 7}}, "manifest.json: test.part is 7"),
        ({"test": "x"}, "manifest.json: test is 'x'"),
        ({"test": {"part": "x"}, "columns": ["y"]}, "manifest.json: columns is ['y']"),
        ({"test": {"part": "x"}, "columns": {"ward": "y"}}, "unknown key 'ward'; known keys here are input, label"),
    ],
)
def test_a_test_part_of_a_manifest_that_cannot_be_read_is_one_sentence(hub, tmp_path, keys, words):
    _, uri = hub
    with pytest.raises(InvalidInput, match=re.escape(words)) as said:
        evaluate(NAME, "2", uri, "", "", tmp_path / "evaluation.json", manifest_in(tmp_path, **keys))
    assert "\n" not in str(said.value)


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
