"""The cron expressions of Kubeflow Pipelines: six fields, seconds first, as Go's robfig/cron version 1 reads them."""

from dataclasses import dataclass

FORM = "seconds minutes hours day-of-month month day-of-week, such as '0 0 3 * * 1' for Mondays at 03:00"
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)  # days of each month, in a leap year
CLASSIC = 5  # fields of the cron of Unix


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()  # the first one means `low`


FIELDS = (
    _Field(name="seconds", low=0, high=59),
    _Field(name="minutes", low=0, high=59),
    _Field(name="hours", low=0, high=23),
    _Field(name="day-of-month", low=1, high=31),
    _Field(name="month", low=1, high=12, words=MONTHS),
    _Field(name="day-of-week", low=0, high=6, words=DAYS),
)


def checked(expression: str) -> str:
    """The expression with single spaces between its six fields.

    Kubeflow Pipelines takes one with five fields too, reads its minutes as seconds and runs at other times than meant.

    Raises:
        ValueError: which field is wrong and what it may be, in one sentence that shows the form.
    """
    given = expression.split()
    if len(given) == CLASSIC:
        raise ValueError(
            f"{expression!r} has five fields; write six, seconds first: {FORM}; this one is probably "
            f"'0 {' '.join(given)}'"
        )
    if len(given) != len(FIELDS):
        raise ValueError(f"{expression!r} is no cron expression of six fields; write {FORM}")
    values = [_values(field, text, expression) for field, text in zip(FIELDS, given, strict=True)]
    days, months = values[3], values[4]
    if given[5] in ("*", "?") and not any(day <= LONGEST[month - 1] for day in days for month in months):
        raise ValueError(f"{expression!r} never comes: no month that it names has day {min(days)}; correct one of them")
    return " ".join(given)


def _values(field: _Field, text: str, expression: str) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        span = _span(field, part)
        if span is None:
            words = f" or {field.words[0].upper()}-{field.words[-1].upper()}" if field.words else ""
            raise ValueError(
                f"{expression!r}: {field.name} is {text!r}; it may be *, numbers from {field.low} to {field.high}"
                f"{words}, ranges such as {field.low}-{field.high}, steps such as */2, and lists of these; write {FORM}"
            )
        found.update(span)
    return found


def _span(field: _Field, part: str) -> range | None:
    span, slash, step = part.partition("/")
    first, dash, last = span.partition("-")
    if slash and not (_digits(step) and int(step) > 0):
        return None
    every = int(step) if slash else 1
    if span in ("*", "?"):
        return range(field.low, field.high + 1, every)
    low = _value(field, first)
    high = _value(field, last) if dash else field.high if slash else low  # 5/10 is 5-59/10
    if low is None or high is None or low > high:
        return None
    return range(low, high + 1, every)


def _value(field: _Field, text: str) -> int | None:
    if text.lower() in field.words:
        return field.low + field.words.index(text.lower())
    return int(text) if _digits(text) and field.low <= int(text) <= field.high else None


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 2
