"""What KFP's own artifacts hold of an evaluation."""

import json

import pytest
from kfp.dsl import ClassificationMetrics, Metrics

from pipelines.steps.shown import show
from tests import run_story

ENDS = ("value", "low", "high")


@pytest.fixture
def evaluation():
    found = run_story.evaluation()
    candidate = found["models"]["candidate"]
    candidate["confusion"] = [[3, 1, 0], [0, 2, 1], [1, 0, 4]]
    found |= {"labels": ["a", "b", "c"], "notes": ["one label has few examples"]}
    candidate["roc_micro"] = {
        "fpr": [0.0, 0.5, 1.0],
        "tpr": [0.0, 1.0, 1.0],
        "thresholds": [1.000001, 0.5, 0.1],
        "auc": 0.75,
    }
    return found


def test_the_candidates_figures_confusion_matrix_and_curve_are_kfps(tmp_path, evaluation):
    path, page = tmp_path / "evaluation.json", tmp_path / "page.html"
    path.write_text(json.dumps(evaluation))
    metrics, classes = Metrics(name="metrics", uri="m"), ClassificationMetrics(name="classes", uri="c")
    show(path, metrics, classes, page)
    figure = evaluation["models"]["candidate"]["metrics"]["macro_f1"]
    assert metrics.metadata["macro_f1"] == figure["value"]
    assert metrics.metadata["macro_f1.low"] == figure["low"]
    for other, each in evaluation["differences"].items():
        assert metrics.metadata[f"macro_f1.over_{other}"] == each["macro_f1"]["value"]
    rows = classes.metadata["confusionMatrix"]["rows"]
    assert [row["row"] for row in rows] == [[3, 1, 0], [0, 2, 1], [1, 0, 4]]
    points = classes.metadata["confidenceMetrics"]
    assert [point["confidenceThreshold"] for point in points] == [1.0, 0.5, 0.1]
    assert [point["recall"] for point in points] == [0.0, 1.0, 1.0]
    for words in ("<h2>Evaluation</h2>", "lung-notes-test.csv", "one label has few examples", "<svg"):
        assert words in page.read_text()
    json.dumps(classes.metadata, allow_nan=False)


def test_an_evaluation_has_no_figure_and_no_curve_where_there_is_nothing_to_tell(tmp_path, evaluation):
    evaluation["models"]["candidate"] |= {"roc_micro": None, "metrics": {"macro_f1": dict.fromkeys(ENDS)}}
    evaluation["differences"] = {"base": {"macro_f1": dict.fromkeys(ENDS)}}
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(evaluation))
    classes = ClassificationMetrics(name="classes", uri="c")
    metrics = Metrics(name="metrics", uri="m")
    show(path, metrics, classes, tmp_path / "page.html")
    assert metrics.metadata == {}
    assert "confidenceMetrics" not in classes.metadata
