"""evaluation.json and its pictures, from scores that a test makes up."""

import json

import numpy as np
import pytest

from deerfield.documents.evaluation import Evaluation
from deerfield.gate.evaluated import read_evaluation
from deerfield.metrics import metrics
from pipelines.evaluation.evaluation_document import document, notes, summary
from pipelines.evaluation.scores import Scores
from pipelines.report_page.pictures import pictures

CLASSES = ("healthy", "<b>fever</b> & rash", "injury")


def scored(skill, classes=CLASSES, examples=120, seed=0, only=None):
    """Random scores that favour the label by `skill`; two sites, two examples of each patient."""
    rng, count = np.random.default_rng(seed), len(classes)
    y = rng.integers(0, count, examples) if only is None else np.full(examples, only)
    logits = rng.standard_normal((examples, count)) + skill * np.eye(count)[y]
    return Scores(
        probabilities=np.exp(logits) / np.exp(logits).sum(1, keepdims=True),
        labels=y,
        classes=classes,
        units=(np.arange(examples) // 2).astype(str),
        sites=np.array(["east", "west"])[np.arange(examples) // 2 % 2],
        fingerprints=tuple(map(str, range(examples))),
    )


def judged(resamples=200, **models):
    about = {name: {"version": "" if name == "base" else "3", "digest": "d" * 64} for name in models}
    found = document(models, about, resamples=resamples)
    count = len(models["candidate"].labels)
    found["test_set"] = {"source": "notes.csv", "sha256": "0" * 64, "examples": count}
    return found | {"reported": {}, "leakage": {"checked": 0, "overlap": 0}}


@pytest.fixture(scope="module")
def three():
    return judged(candidate=scored(2.0), champion=scored(1.5), base=scored(0.0))


def test_the_gate_and_the_report_read_what_is_written(three, tmp_path):
    (tmp_path / "evaluation.json").write_text(json.dumps(three, allow_nan=False))
    gate = read_evaluation(tmp_path / "evaluation.json")
    assert gate.candidate.metrics["macro_f1"].value == three["models"]["candidate"]["metrics"]["macro_f1"]["value"]
    assert sorted(gate.candidate.sites) == sorted(gate.champion.sites) == ["east", "west"]
    assert gate.differences["macro_f1"].low == three["differences"]["champion"]["macro_f1"]["low"]
    assert 0 < gate.candidate.ece < 1
    page = Evaluation.model_validate(three)
    assert page.models["candidate"].per_class["injury"].examples == int((scored(2.0).labels == 2).sum())
    assert page.by_site["east"].examples == 60


def test_a_difference_is_the_candidate_less_the_other(three):
    values = {name: each["metrics"]["accuracy"]["value"] for name, each in three["models"].items()}
    for other in ("champion", "base"):
        difference = three["differences"][other]["accuracy"]
        assert difference["value"] == pytest.approx(values["candidate"] - values[other])
        assert difference["low"] < difference["value"] < difference["high"]
    assert metrics(scored(2.0).probabilities, scored(2.0).labels)["accuracy"] == pytest.approx(values["candidate"])


def test_equal_scores_give_equal_documents(three):
    again = judged(candidate=scored(2.0), champion=scored(1.5), base=scored(0.0))
    assert json.dumps(again) == json.dumps(three)


def test_labels_without_an_example_are_noted():
    assert notes(scored(1.0)) == []
    (alone,) = notes(scored(1.0, only=2))
    assert "every example of the test set has the label injury" in alone
    two = scored(1.0, classes=(*CLASSES, "rare"), only=None)
    (missing,) = notes(Scores(**{**fields(two), "labels": two.labels % 3}))
    assert missing == "no example of the test set has the label rare: macro averages leave it out"


def fields(scores):
    return {name: getattr(scores, name) for name in scores.__slots__}


def test_one_label_alone_is_a_whole_document_without_auc():
    found = judged(candidate=scored(1.0, only=2), base=scored(0.0, only=2))
    assert found["models"]["candidate"]["metrics"]["macro_auc"] == {"value": None, "low": None, "high": None}
    assert found["models"]["candidate"]["roc"] == dict.fromkeys(CLASSES)
    assert found["models"]["candidate"]["per_class"]["healthy"]["recall"] is None
    json.dumps(found, allow_nan=False)
    assert "ROC curves" not in pictures(found)
    assert "AUC is undefined" in pictures(found)


def test_many_labels_stay_below_what_an_aggregator_takes():
    names = tuple(f"label {number}" for number in range(80))
    found = judged(20, **{name: scored(1.0, names, 4000) for name in ("candidate", "champion", "base")})
    assert len(json.dumps(found)) < 1.5 * 2**20
    page = pictures(found)
    assert "Of 80 labels, the 6 hardest are drawn." in page
    assert page.count("<svg") == 3
    assert "Its commonest mistake: label " in page


def test_the_pictures_say_in_words_what_they_show(three):
    page = pictures(three)
    assert page.count("<svg") == 4
    assert page.count("<figcaption>") == 4
    right = int(np.trace(three["models"]["candidate"]["confusion"]))
    assert f"The candidate is right in {right} of 120 examples" in page
    assert f"{three['models']['candidate']['calibration']['ece']:.3f}, champion" in page
    assert "&lt;b&gt;fever&lt;/b&gt; &amp; rash" in page
    assert "<b>fever" not in page
    assert "http" not in page
    assert "<image" not in page  # a page's policy shows none
    assert pictures(three) == page


def test_a_log_has_an_evaluation_in_a_few_lines(three):
    lines = summary(three)
    assert lines[0] == "120 test examples; intervals of 95% from 200 resamples"
    assert lines[1].startswith("macro_f1 of candidate (version 3): 0.")
    assert lines[-1].startswith("macro_f1 of the candidate less that of base: 0.")
    alone = judged(candidate=scored(1.0, only=2), base=scored(0.0, only=2))
    alone["primary"] = "macro_auc"
    assert summary(alone)[1] == "macro_auc of candidate (version 3): undefined"
