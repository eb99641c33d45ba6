"""What is prepared for an embedded run: what cannot work is refused before anything starts."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as tf
import yaml
from PIL import Image
from pydantic import ValidationError

from deerfield.documents.partition_manifest import NAME as MANIFEST
from deerfield.documents.partition_manifest import Manifest
from deerfield.documents.reading import read
from deerfield.errors import InvalidInput
from deerfield.fingerprint import fingerprint, read_fingerprints
from deerfield.runfile import load
from deerfield.runspec import RunSpec
from services.client import prepare
from services.client.evaluation import scoring
from services.client.sources import data, hub
from services.client.training import backbones, device, models
from tests.integration.federation import SITES
from tests.unit.client import tiny
from tests.unit.client.run_files import PATIENT, file, partitioned

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_bounds_are_public_and_hold_for_every_site():
    counts = {"a": 123, "b": 987}
    assert prepare.bounds(counts, None, "examples") == (120, 990)
    assert prepare.bounds(counts, 100, "examples") == (100, 990)
    with pytest.raises(InvalidInput, match="units_low: 124 is above the 123 patients of a"):
        prepare.bounds(counts, 124, "patients")


@pytest.mark.parametrize("privacy", [{"unit": "none"}, PATIENT])
def test_bounds_count_what_the_run_protects(tmp_path, privacy):
    """Fifteen patients of five notes at each of three hospitals, some of them held out."""
    run = file(tmp_path, **partitioned("column", minimum=5), privacy=privacy)
    notes = [f"{site},{site}-{i // 5},fever,fever {i}" for site in SITES for i in range(75)]
    (tmp_path / "notes.csv").write_text("\n".join(["hospital,patient,label,text", *notes]) + "\n")
    found = prepare.prepare(run, tmp_path / "out", pooled=False)
    rows = {site: np.load(path) for site, path in found["sites"].items()}
    counts = [len(kept) if privacy["unit"] == "none" else len({i // 5 for i in kept}) for kept in rows.values()]
    assert (found["units_low"], found["units_high"]) == (min(counts), max(counts))  # two digits: nothing is rounded


def test_a_run_that_protects_patients_needs_to_be_told_who_they_are(tmp_path):
    source = {"path": "notes.csv", "site": "hospital"}
    run = file(tmp_path, privacy=PATIENT, embedded={"source": source})
    with pytest.raises(InvalidInput, match="unit 'patient' needs the column that names each example's patient") as said:
        prepare.prepare(run, tmp_path / "out", pooled=False)
    assert "\n" not in str(said.value)


def test_what_is_prepared_describes_the_adapter(tmp_path):
    run = file(tmp_path)
    found = prepare.prepare(run, tmp_path, pooled=False)
    assert found["adapter"]["base_model.model.encoder.layer.0.attention.self.query.lora_A.weight"] == (2, 12)
    assert found["adapter"]["head.weight"] == (3, 12)
    assert len(found["digest"]) == 64
    assert set(np.load(found["sites"]["north"])) <= set(range(120))


def test_row_numbers_are_those_of_the_source_where_only_some_rows_are_used(tmp_path):
    np.save(tmp_path / "some.npy", np.arange(60, 120))
    run = file(tmp_path, **partitioned("iid", sites=2, minimum=2))
    source = run.embedded.source.model_copy(update={"rows": str(tmp_path / "some.npy")})
    run = run.model_copy(update={"embedded": run.embedded.model_copy(update={"source": source})})
    found = prepare.prepare(run, tmp_path, pooled=False)
    rows = np.concatenate([np.load(path) for path in (*found["sites"].values(), found["validation"])])
    assert sorted(rows) == list(range(60, 120))


def test_the_manifest_says_what_each_part_holds_and_no_place_or_column(tmp_path):
    run = file(tmp_path, **partitioned("column", minimum=2))
    found = prepare.prepare(run, tmp_path, pooled=False)
    whole = (tmp_path / MANIFEST).read_text()
    told = read(Manifest, tmp_path / MANIFEST)
    rows = {site: np.load(path) for site, path in found["sites"].items()}
    assert (told.kind, set(told.sites)) == ("simulation", set(rows))
    for site, part in told.sites.items():
        assert (part.examples, sum(part.labels.values())) == (len(rows[site]), len(rows[site]))
        assert 0 < part.units <= part.examples
    assert set(told.hub) == {*rows, "test"}
    assert len(set(told.hub.values())) == len(rows) + 1
    assert not any(word in whole for word in ("notes.csv", str(tmp_path), "hospital"))
    assert len(read_fingerprints(tmp_path / told.example_sha256)) == sum(map(len, rows.values()))
    again = tmp_path / "again"
    again.mkdir()
    prepare.prepare(run, again, pooled=False)
    assert (again / MANIFEST).read_text() == whole


def test_the_test_set_of_the_manifest_is_what_an_evaluation_of_its_rows_finds(tmp_path):
    run = file(tmp_path, **partitioned("iid", sites=2, minimum=2))
    some = np.arange(20, 120)
    np.save(tmp_path / "some.npy", some)
    source = run.embedded.source.model_copy(update={"rows": str(tmp_path / "some.npy")})
    run = run.model_copy(update={"embedded": run.embedded.model_copy(update={"source": source})})
    found = prepare.prepare(run, tmp_path, pooled=False)
    test = read(Manifest, tmp_path / MANIFEST).test
    held_out = np.load(found["validation"])
    kept = np.load(tmp_path / test.rows)
    assert (len(kept) + test.copies, set(kept) <= set(held_out)) == (len(held_out), True)
    tested = source.model_copy(update={"rows": str(tmp_path / test.rows)})
    examples = data.read(tested, run.labels, "text")
    prints = tuple(fingerprint(each) for each in examples.examples.inputs)
    assert scoring.sha256_of(tested, examples, run.labels, prints) == test.sha256
    assert not set(prints) & set(read_fingerprints(tmp_path / "rows" / "training.txt"))


def test_a_test_set_whose_every_like_is_trained_on_is_none(tmp_path):
    run = file(tmp_path, **partitioned("iid", sites=2, minimum=2))
    notes = [f"east,{i},fever,fever" for i in range(60)] + [f"east,{60 + i},rash,rash" for i in range(60)]
    (tmp_path / "notes.csv").write_text("\n".join(["hospital,patient,label,text", *notes]) + "\n")
    prepare.prepare(run, tmp_path, pooled=False)
    found = read(Manifest, tmp_path / MANIFEST)
    assert (found.test, found.hub["test"]) == (None, "")


def test_unit_site_makes_each_site_one_unit_and_holds_delta_to_their_number(tmp_path):
    run = file(tmp_path, privacy={"unit": "site", "epsilon": 1.0})
    found = prepare.prepare(run, tmp_path / "out", pooled=False)
    assert (found["units_low"], found["units_high"]) == (1, 1)
    many = tuple(f"s{number}" for number in range(10_001))
    document = {**run.spec.model_dump(), "federation": {"sites": many}}
    document["privacy"]["delta"] = 1e-5
    with pytest.raises(ValidationError, match="delta: 1e-05 is above 1/\\(10 x 10001 sites\\)"):
        RunSpec.model_validate(document)


RECORD = {"unit": "record", "epsilon": 8.0}


def prepared(folder, **changes):
    run = file(folder, **{key: value for key, value in changes.items() if key != "model"}, **_model(changes))
    return prepare.prepare(run, folder, pooled=False)


def _model(changes):
    base = {"base": "tiny/bert", "input": "text", "lora": {"rank": 2, "targets": ["query", "value"]}}
    model = changes.get("model", {})
    return {"model": {**base, **model, "lora": {**base["lora"], **model.get("lora", {})}}}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": {"lora": {"rank": 13}}}, r"lora: rank: 13 is above 12, the smaller width of layer \S+; lower it"),
        ({"model": {"lora": {"targets": ["c_attn"]}}}, r"c_attn names no linear layer .*; it has .*query \(3\)"),
        ({"labels": ["normal", "fever"]}, r"column 'label' holds 'rash', which `labels:` .* does not declare"),
        ({"embedded": {"base": "absent/of/models"}}, r"base 'absent/of/models': there is no such folder"),
        ({"embedded": {"units_low": 50}}, r"units_low: 50 is above the \d+ examples of (east|north|west)"),
        (
            {"strategy": "head", "model": {"head": {"kind": "prompt", "prompts": "pain of {label}"}}},
            "nothing to train: strategy 'head'",
        ),
        (
            {"training": {"engine": "opacus"}, "embedded": {"precision": "bf16"}},
            "engine: opacus computes in fp32 alone, and the sites would train in bf16",
        ),
    ],
)
def test_what_would_stop_every_site_later_is_one_sentence_now(tmp_path, changes, says):
    with pytest.raises(InvalidInput, match=says) as refusal:
        prepared(tmp_path, **changes)
    assert "\n" not in str(refusal.value)


def test_an_offline_machine_is_told_so_before_anything_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.reachable.cache_clear()
    with pytest.raises(InvalidInput, match="no folder of that name, and the hub is unreachable"):
        prepared(tmp_path, embedded={"base": "nobody/nothing"})
    hub.reachable.cache_clear()


def test_a_base_that_mixes_the_examples_of_a_batch_is_refused(tmp_path):
    with torch.random.fork_rng(devices=[]):
        config = tf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
        base = tf.ResNetModel(config)
    for layer in base.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.track_running_stats = False
    classified = tiny.spec("resnet")
    backbone = backbones.Backbone(tmp_path, base.eval(), "image", lambda outputs, _: outputs, 16)
    with pytest.raises(InvalidInput, match="keeps no running statistics: it mixes the examples of a batch"):
        models.Classifier(backbone, classified, slots=("shared",), device=device.Device())


def test_delta_must_suit_the_largest_site(tmp_path):
    run = file(tmp_path, privacy={**RECORD, "delta": 1e-5})
    prepare._check_delta(run.spec, 10_000)
    with pytest.raises(InvalidInput, match=r"delta: 1e-05 is above 1/\(10 x 20000 records of the largest site\)"):
        prepare._check_delta(run.spec, 20_000)
    with pytest.raises(InvalidInput, match=r"10 x 20000 patients of the largest site"):
        prepare._check_delta(file(tmp_path, privacy={**PATIENT, "delta": 1e-5}).spec, 20_000)


def test_the_sites_device_is_part_of_what_is_prepared(tmp_path):
    assert prepared(tmp_path, embedded={"device": "cpu"})["device"].startswith("cpu, fp32")


def test_a_foreign_site_name_is_refused_before_anything_is_written(tmp_path):
    run = file(tmp_path)
    notes = tmp_path / "notes.csv"
    notes.write_text(notes.read_text("utf-8").replace("\nnorth,", "\n../north,"), "utf-8")
    with pytest.raises(InvalidInput, match=r"names a site '\.\./north'"):
        prepare.prepare(run, tmp_path / "out", pooled=False)
    assert not (tmp_path / "out").exists()


def images(folder, labels, each):
    rng = np.random.default_rng(0)
    for label in labels:
        (folder / label).mkdir(parents=True)
        for number in range(each):
            Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(folder / label / f"{number}.png")


def notes(path, labels, each):
    rows = [
        f"{label} cough {number},{label},{hospital}-{number // 2},{hospital}"
        for hospital in ("north", "south")
        for label in labels
        for number in range(each)
    ]
    path.write_text("\n".join(["note,urgency,patient_id,hospital", *rows]) + "\n")


LAYOUTS = {  # example: (family of its base, examples of each label, sites)
    "deer-oct": ("clip", 120, 12),
    "deer-kvasir": ("clip", 120, 12),
    "images": ("vit", 50, 3),
    "notes": ("bert", 140, 2),
}


@pytest.mark.parametrize("example", LAYOUTS)
def test_every_example_can_be_prepared_from_data_of_its_layout(tmp_path, saved, example):
    family, each, sites = LAYOUTS[example]
    text = (EXAMPLES / f"{example}.yaml").read_text("utf-8")
    (tmp_path / "run.yaml").write_text(text, "utf-8")
    content = yaml.safe_load(text)
    path = tmp_path / content["embedded"]["source"]["path"]
    path.parent.mkdir(parents=True, exist_ok=True)
    (notes if family == "bert" else images)(path, content["labels"], each)
    run = load(tmp_path / "run.yaml")
    run = run.model_copy(update={"embedded": run.embedded.model_copy(update={"base": str(saved(family))})})
    found = prepare.prepare(run, tmp_path / "out", pooled=False)
    assert len(found["sites"]) == sites
    assert found["units_low"] >= 20
    assert ("head.weight" in found["adapter"]) == (run.model.head.kind == "linear")
