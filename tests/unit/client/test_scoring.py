"""Several models on one test set, example by example."""

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from deerfield import peft_folder
from deerfield.errors import InvalidInput
from deerfield.fingerprint import fingerprint
from deerfield.runfile import Source
from services.client.evaluation.evaluator import evaluate_folder
from services.client.evaluation.scoring import score_all
from services.client.sources import data
from services.client.training import backbones, models
from services.client.training.cached import Cached
from services.client.training.device import Device
from services.client.training.trainer import predict
from tests.unit.client import tiny

TEXTS = ("fever cough", "rash pain", "normal", "fever a photo", "cough rash rash", "pain of normal")
SITES = ("east", "east", "west", "west", "west", "east")


@pytest.fixture
def test_set(tmp_path):
    """Six notes of two hospitals; a patient of each is called p0."""
    lines = ["hospital,patient,label,text"]
    lines += [f"{SITES[i]},p{i // 2},{tiny.LABELS[i % 3]},{text}" for i, text in enumerate(TEXTS)]
    path = tmp_path / "test.csv"
    path.write_text("\n".join(lines) + "\n")
    return Source(path=str(path), site="hospital", patient="patient")


def save(folder, base, family="bert", seed=1, **changes):
    """An adapter folder with random tensors; answers its spec and its tensors."""
    spec = tiny.spec(family, **changes.pop("model", {}))
    spec = spec.model_copy(
        update={"model": spec.model.model_copy(update={"digest": backbones.digest(base), "base": str(base)}), **changes}
    )
    rng = np.random.default_rng(seed)
    shapes = models.load(base, spec).schema()
    adapter = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    peft_folder.write(folder, spec, adapter)
    return spec, adapter


def ask(folder, source, training=None, sha="", **named):
    """Serves a request; what was printed, and the arrays of each model."""
    folder.mkdir(exist_ok=True)
    request = {"source": source.model_dump(), "models": named, "training": training and str(training), "sha256": sha}
    (folder / "request.json").write_text(json.dumps(request))
    said = score_all(folder / "request.json", folder, Device())
    return said, {name: np.load(folder / f"{name}.npz") for name in named}


def test_every_model_is_scored_as_it_is_alone(saved, tmp_path, test_set):
    base = saved("bert")
    spec, first = save(tmp_path / "first", base)
    _, second = save(tmp_path / "second", base, seed=2, labels=("rash", "normal", "fever"))
    said, found = ask(
        tmp_path / "out",
        test_set,
        candidate={"adapter": str(tmp_path / "first")},
        champion={"adapter": str(tmp_path / "second")},
        base={"adapter": str(tmp_path / "first"), "trained": False},
    )
    sha = sha256(Path(test_set.path).read_bytes()).hexdigest()
    assert said == {"examples": 6, "labels": spec.labels, "checked": 0, "sha256": sha}
    classifier = models.load(base, spec)
    examples = Cached(classifier, data.read(test_set, spec.labels, "text").examples)
    classifier.load("shared", first)
    np.testing.assert_allclose(found["candidate"]["probabilities"], predict(classifier, examples), rtol=1e-12)
    classifier.load("shared", second)
    in_its_order = predict(classifier, examples)  # rash, normal, fever
    np.testing.assert_allclose(found["champion"]["probabilities"], in_its_order[:, [1, 2, 0]], rtol=1e-12)
    np.testing.assert_allclose(found["base"]["probabilities"], 1 / 3)
    for arrays in found.values():
        assert arrays["classes"].tolist() == list(tiny.LABELS)
        assert arrays["labels"].tolist() == [0, 1, 2, 0, 1, 2]
        assert arrays["sites"].tolist() == list(SITES)
        assert arrays["units"].tolist() == ["east/p0", "east/p0", "west/p1", "west/p1", "west/p2", "east/p2"]
        assert arrays["fingerprints"].tolist() == [fingerprint(text) for text in TEXTS]


def test_an_untrained_prompt_head_is_the_base_model_zero_shot(saved, tmp_path):
    base = saved("clip")
    model = {"input": "image", "head": {"kind": "prompt"}}
    spec, _ = save(tmp_path / "prompt", base, "clip", model=model)
    images, labels = tiny.examples("clip", 8).inputs, np.arange(8) % 3
    np.savez(tmp_path / "images.npz", image=np.stack([np.resize(each, (20, 20)) for each in images]), label=labels)
    source = Source(path=str(tmp_path / "images.npz"), input="image")
    _, found = ask(tmp_path / "out", source, base={"adapter": str(tmp_path / "prompt"), "trained": False})
    zero_shot = models.load(base, spec)  # adapters at zero
    expected = predict(zero_shot, Cached(zero_shot, data.read(source, spec.labels, "image").examples))
    np.testing.assert_allclose(found["base"]["probabilities"], expected, rtol=1e-6)
    assert found["base"]["probabilities"].std() > 1e-4


def test_the_scores_of_one_folder_are_written_beside_its_metrics(saved, tmp_path, test_set):
    save(tmp_path / "one", saved("bert"))
    alone = evaluate_folder(tmp_path / "one", test_set, None, scores=tmp_path / "one.npz")
    _, together = ask(tmp_path / "out", test_set, one={"adapter": str(tmp_path / "one")})
    written = np.load(tmp_path / "one.npz")
    assert {name: written[name].tolist() for name in written} == {
        name: together["one"][name].tolist() for name in together["one"]
    }
    untrained = evaluate_folder(tmp_path / "one", test_set, None, trained=False)
    assert (untrained["examples"], untrained["metrics"]["auc"]) == (6, 0.5)
    assert alone["metrics"] != untrained["metrics"]


def test_a_test_set_that_overlaps_the_training_data_is_refused(saved, tmp_path, test_set):
    save(tmp_path / "one", saved("bert"))
    seen, one = tmp_path / "examples.sha256", {"adapter": str(tmp_path / "one")}
    seen.write_text("".join(f"{fingerprint(text)}\n" for text in ("another note", "NORMAL", "pain  of normal")))
    with pytest.raises(InvalidInput, match=r"2 of 6 test examples are among the 3 training .* the first is row 3: "):
        ask(tmp_path / "out", test_set, training=seen, one=one)
    assert not list((tmp_path / "out").glob("*.npz"))
    seen.write_text(f"{fingerprint('another note')}\n")
    said, _ = ask(tmp_path / "out", test_set, training=seen, one=one)
    assert said["checked"] == 1


def test_a_test_set_that_was_changed_is_refused(saved, tmp_path, test_set):
    save(tmp_path / "one", saved("bert"))
    one = {"adapter": str(tmp_path / "one")}
    said, _ = ask(tmp_path / "out", test_set, one=one)
    assert ask(tmp_path / "out", test_set, sha=said["sha256"], one=one)[0] == said
    with Path(test_set.path).open("a") as file:
        file.write("east,p9,fever,one more\n")
    with pytest.raises(InvalidInput, match=r"has sha256 .*, and its manifest says .*: somebody has changed it"):
        ask(tmp_path / "out", test_set, sha=said["sha256"], one=one)


def test_chosen_rows_are_told_from_others_by_their_content(saved, tmp_path, test_set):
    save(tmp_path / "one", saved("bert"))
    found = set()
    for rows in ([0, 1], [1, 2], [0, 1]):
        np.save(tmp_path / "rows.npy", rows)
        chosen = test_set.model_copy(update={"rows": str(tmp_path / "rows.npy")})
        said, _ = ask(tmp_path / "out", chosen, one={"adapter": str(tmp_path / "one")})
        found.add(said["sha256"])
    assert len(found) == 2


def test_models_that_cannot_be_compared_are_refused(saved, tmp_path, test_set):
    bert, clip = saved("bert"), saved("clip")
    save(tmp_path / "one", bert)
    save(tmp_path / "fewer", bert, labels=("normal", "fever"))
    save(tmp_path / "image", clip, "clip")
    one = {"adapter": str(tmp_path / "one")}
    with pytest.raises(InvalidInput, match="one knows the labels normal, fever, rash, and fewer normal, fever: they"):
        ask(tmp_path / "out", test_set, one=one, fewer={"adapter": str(tmp_path / "fewer")})
    with pytest.raises(InvalidInput, match="one reads texts and image images"):
        ask(tmp_path / "out", test_set, one=one, image={"adapter": str(tmp_path / "image")})
    with pytest.raises(InvalidInput, match=r"has digest .* the adapter was trained on"):
        ask(tmp_path / "out", test_set, one={**one, "base": str(clip)})


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("label,text\nnormal,fever\ncrash,cough", "holds 'crash', which `labels:` of the run does not declare"),
        ("label,text", "has column names and no rows"),
        ("kind,text\nnormal,fever", "has no column 'label'"),
    ],
)
def test_a_test_set_that_does_not_fit_is_refused(saved, tmp_path, lines, words):
    save(tmp_path / "one", saved("bert"))
    (tmp_path / "bad.csv").write_text(lines + "\n")
    with pytest.raises(InvalidInput, match=words):
        ask(tmp_path / "out", Source(path=str(tmp_path / "bad.csv")), one={"adapter": str(tmp_path / "one")})
