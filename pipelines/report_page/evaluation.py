"""What the candidate reached on the test set, beside the champion and the base model."""

from deerfield.documents.evaluation import Evaluation
from pipelines.pages.formats import number
from pipelines.pages.page import box, joined, pairs, paragraph, table
from pipelines.report_page import wording
from pipelines.report_page.found import Found
from pipelines.report_page.pictures import pictures
from pipelines.report_page.rounds import ROWS

UNCHECKED = (
    "The test examples were not looked for among the training examples: where the sites own the data, nobody but they "
    "can do that."
)


def evaluation(found: Found) -> str:
    """The section."""
    document = found.evaluation
    if document is None:
        return joined(paragraph("No evaluation on a test set was given to this report.", "gap"))
    return joined(
        _leakage(document),
        _metrics(document),
        _differences(document),
        pictures(document.whole),
        _classes(document),
        "<h3>What was compared, and on what</h3>",
        pairs(_about(document)),
    )


def _about(document: Evaluation) -> dict[str, str]:
    test = document.test_set
    models = {
        f"{name}{f', version {scored.version}' * bool(scored.version)}": scored
        for name, scored in document.models.items()
    }
    return {
        "test set": f"{test.source}: {wording.count(test.examples, 'example')}",
        "its sha256": test.sha256,
        **{name: scored.digest for name, scored in models.items()},
        "intervals": f"{document.confidence:.0%}, by bootstrap over {document.resamples} resamples of the test set",
    }


def _leakage(document: Evaluation) -> str:
    leakage, examples = document.leakage, document.test_set.examples
    if not leakage.checked:
        return paragraph(UNCHECKED, "soft")
    if leakage.overlap == 0:
        return paragraph(f"None of the {examples} test examples is among the {leakage.checked} that were trained on.")
    words = f"{leakage.overlap} of {examples} test examples were trained on, so the numbers below are too good."
    return box("verdict bad", "Leakage.", paragraph(words))


def _metrics(document: Evaluation) -> str:
    first = {document.primary: None}
    names = list(first | {name: None for scored in document.models.values() for name in sorted(scored.metrics)})
    rows = [
        (wording.metric(name), *(wording.estimate(scored.metrics.get(name)) for scored in document.models.values()))
        for name in names
    ]
    if "ece" not in names:
        each = (number(scored.calibration.ece, ".3f") for scored in document.models.values())
        rows.append((wording.metric("ece"), *each))
    return table(("metric", *document.models), rows, "t" + "n" * len(document.models))


def _differences(document: Evaluation) -> str:
    if not document.differences:
        return ""
    names = sorted({name for each in document.differences.values() for name in each})
    rows = [
        (wording.metric(name), *(wording.estimate(each.get(name), "+.3f") for each in document.differences.values()))
        for name in names
    ]
    head = ("metric", *(f"minus the {other}" for other in document.differences))
    return "<h3>How much better the candidate is, on the same examples</h3>" + table(
        head, rows, "t" + "n" * len(document.differences)
    )


def _classes(document: Evaluation) -> str:
    candidate = document.candidate
    if not candidate.per_class:
        return ""
    rows = [
        (label, str(each.examples), *(number(value, ".3f") for value in (each.precision, each.recall, each.f1)))
        for label, each in candidate.per_class.items()
    ]
    rows, more = wording.cut(rows, ROWS)
    shown = table(("label", "examples", "precision", "recall", "F1"), rows, "tnnnn")
    return "<h3>The candidate, label by label</h3>" + shown + (paragraph(more, "soft") if more else "")
