"""What is shown of a verdict whose evidence is not what a gate writes: numbers alone, and no traceback."""

from math import isnan, nan

import pytest

from deerfield.documents.verdict import Verdict
from pipelines.registry.reader import Version
from pipelines.registry.report import model_table
from pipelines.registry.view import Judged

VERSION = Version(model="lungs", version="1", mlflow_run="", created_s=0.0, aliases=(), tags={})
ROW = {"rule": "minimum", "passed": True}


def judged(evidence):
    rules = {"model": "lungs", "version": "1", "expected_champion": "", "passed": True, "rules": [ROW]}
    return Judged(version=VERSION, verdict=Verdict.model_validate({**rules, "evidence": evidence}))


def test_figures_of_a_verdict_are_shown_and_what_is_not_known_is_nan():
    metrics = {"f1": {"value": 0.5, "low": None}}
    found = judged({"evaluation": {"candidate": {"metrics": metrics}}}).metrics["f1"]
    assert (found["value"], isnan(found["low"]), isnan(found["high"])) == (0.5, True, True)


@pytest.mark.parametrize("figure", [3, "high", ["value"], {"value": "high", "low": {}, "high": []}])
def test_a_figure_that_is_none_is_not_known(figure):
    found = judged({"rules": {"metric": "f1"}, "evaluation": {"candidate": {"metrics": {"f1": figure}}}})
    assert str(found.metrics) == str({"f1": dict.fromkeys(("value", "low", "high"), nan)})
    assert model_table([found]).row_count == 1


@pytest.mark.parametrize("evidence", [{}, {"evaluation": 3}, {"evaluation": {"candidate": ["metrics"]}, "rules": "x"}])
def test_evidence_of_another_form_shows_nothing(evidence):
    found = judged(evidence)
    assert (found.metrics, found.metric, found.test_set) == ({}, "", "")
