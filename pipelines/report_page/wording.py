"""How the report says numbers, times and names."""

from collections.abc import Iterable, Mapping
from time import gmtime, strftime

from deerfield.documents.evaluation import Interval
from pipelines.pages.formats import number, short
from pipelines.report_page.documents import OpenPhase

NAMES = {
    "accuracy": "accuracy",
    "f1": "macro-F1",
    "macro_f1": "macro-F1",
    "auc": "AUC",
    "ece": "calibration error (ECE)",
    "precision": "precision",
    "recall": "recall",
}


def metric(name: str) -> str:
    """A metric's name for people."""
    return NAMES.get(name, short(name.replace("_", " ")))


def estimate(interval: Interval | None, form: str = ".3f") -> str:
    """A value, and the bounds of its interval where there are such."""
    if interval is None or interval.value is None:
        return "–"
    value = number(interval.value, form)
    if interval.low is None or interval.high is None:
        return value
    return f"{value} ({number(interval.low, form)} to {number(interval.high, form)})"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, as long as it takes."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    return f"{hours} h {left} min" if hours else f"{minutes} min {rest} s"


def date(seconds: float) -> str:
    """A moment in UTC; a dash where it is not known."""
    return strftime("%Y-%m-%d %H:%M UTC", gmtime(seconds)) if seconds else "–"


def several(names: Iterable[str], most: int = 6) -> str:
    """Names in a sentence; no more than `most` of them."""
    each = list(names)
    shown = ", ".join(each[:most])
    return shown if len(each) <= most else f"{shown} and {len(each) - most} more"


def count(amount: int, noun: str) -> str:
    """A number of things."""
    return f"{amount} {noun}" if amount == 1 else f"{amount} {noun}s"


def phase(of: OpenPhase, factors: str = "") -> str:
    """A phase as people count: rounds from 1, then which factors travelled."""
    return f"{of.round + 1} {factors}".strip() if factors else f"{of.round + 1}.{of.phase + 1}"


def cut(rows: list[tuple[str, ...]], most: int) -> tuple[list[tuple[str, ...]], str]:
    """At most so many rows, and the sentence that says how many there are."""
    if len(rows) <= most:
        return rows, ""
    return rows[:most], f"The first {most} of {len(rows)}; result.json has them all."


def flat(document: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Nested keys joined by dots, values as text."""
    rows: dict[str, str] = {}
    for name, value in document.items():
        if isinstance(value, Mapping):
            rows |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            rows[f"{prefix}{name}"] = several(map(str, value))
        else:
            rows[f"{prefix}{name}"] = f"{value:.4g}" if isinstance(value, float) else str(value)
    return rows
