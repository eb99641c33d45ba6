"""What the gate said of the model: every rule with its numbers, and the evidence."""

from deerfield.documents.verdict import RuleVerdict, Verdict
from pipelines.pages.formats import number
from pipelines.pages.page import box, joined, pairs, paragraph, table
from pipelines.report_page import wording
from pipelines.report_page.found import Found

UNJUDGED = "No verdict of the gate was given to this report; deerfield models show says what was promoted."
EVIDENCE = 80  # entries of the evidence


def verdict(found: Found) -> str:
    """The section."""
    given = found.verdict
    if given is None:
        words = UNJUDGED
        return joined(paragraph(words, "gap"))
    rows = [_row(rule) for rule in given.rules]
    return joined(
        _box(given),
        table(("rule", "", "value", "limit", "details"), rows, "ttnnw"),
        _evidence(given),
    )


def headline(given: Verdict) -> str:
    """The verdict in a sentence."""
    what = f"{given.model} version {given.version}"
    if given.passed:
        return f"{what} passed all {len(given.rules)} rules of the gate and may become the champion."
    broken = [rule.rule for rule in given.rules if not rule.passed]
    return (
        f"{what} was refused by {wording.count(len(broken), 'rule')} of {len(given.rules)}: {wording.several(broken)}."
    )


def _box(given: Verdict) -> str:
    before = (
        f"The champion to be replaced: version {given.expected_champion}."
        if given.expected_champion
        else "There was no champion before."
    )
    kind, word = ("verdict", "Passed.") if given.passed else ("verdict bad", "Refused.")
    return box(kind, word, paragraph(headline(given)), paragraph(before, "soft"))


def _row(rule: RuleVerdict) -> tuple[str, ...]:
    said = "passed" if rule.passed else "NOT PASSED"
    return rule.rule.replace("_", " "), said, number(rule.value, ".4g"), number(rule.limit, ".4g"), rule.detail


def _evidence(given: Verdict) -> str:
    rows = wording.flat(given.evidence)
    if not rows:
        return ""
    shown = dict(list(rows.items())[:EVIDENCE])
    more = f"The first {EVIDENCE} of {len(rows)}; verdict.json has them all." if len(rows) > EVIDENCE else ""
    return "<h3>Evidence</h3>" + pairs(shown) + (paragraph(more, "soft") if more else "")
