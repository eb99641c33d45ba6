"""The form of what each kind of entry says: which keys it has, and what may stand under each."""

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, TypeAlias

from deerfield.ledger.entry import INFINITY, SHA256

_Check: TypeAlias = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _real(value: Any) -> bool:
    return type(value) is float and isfinite(value) and value >= 0


def _rate(value: Any) -> bool:
    return _real(value) and 0 < value <= 1


def _share(value: Any) -> bool:
    return _real(value) and 0 < value < 1


def _cost(value: Any) -> bool:
    return value == INFINITY or _real(value)


def _digest(value: Any) -> bool:
    return _text(value) and SHA256.match(value) is not None


def _unit(value: Any) -> bool:
    return value in ("record", "patient", "site", "none")


def _or_null(check: _Check) -> _Check:
    return lambda value: value is None or check(value)


def _extra(value: Any) -> bool:
    form = {"noise_multiplier": _cost, "sample_rate": _rate, "steps": _count}
    return isinstance(value, list) and all(
        isinstance(each, dict) and set(each) == set(form) and all(ok(each[name]) for name, ok in form.items())
        for each in value
    )


_TERMS: dict[str, _Check] = {
    **dict.fromkeys(("federation", "site", "population"), _text),
    "unit": _unit,
    "epsilon": _cost,
    "delta": _share,
    "filter": lambda value: value in ("sum", "renyi"),
    "order": _or_null(lambda value: _real(value) and value > 1),
    **dict.fromkeys(("units_low", "units_high"), _count),
    "commitment": _or_null(_text),
    "public_key": _digest,
}
_CHARGE: dict[str, _Check] = {"epsilon_before": _cost, "epsilon_after": _cost}

FORMS: dict[str, dict[str, _Check]] = {
    "open": _TERMS,
    "terms": _TERMS,
    "run": {
        **dict.fromkeys(("run", "spec", "accountant"), _text),
        **dict.fromkeys(("incarnation", "steps", "phases", "spare_phases"), _count),
        "unit": _unit,
        **dict.fromkeys(("noise_multiplier", "clip", "epsilon"), _cost),
        "sample_rate": _rate,
        "delta": _share,
        "extra": _extra,
        **_CHARGE,
    },
    "task": {
        "run": _text,
        **dict.fromkeys(("incarnation", "round", "phase", "attempt", "steps", "reserved_by"), _count),
        **_CHARGE,
    },
    "commit": {"reservation": _count, "update": _digest},
    "infinite": {"reason": _text},
    "reconcile": {
        **dict.fromkeys(("operator", "reason"), _text),
        "known_sequence": _or_null(_count),
        "known_head": _or_null(_digest),
        "known_epsilon": _cost,
        "known_delta": _or_null(_real),
        "agreed_sequence": _or_null(_count),
        "agreed_head": _or_null(_digest),
        "agreed_epsilon": _or_null(_cost),
        "agreed_delta": _or_null(_real),
        "epsilon": _cost,
        "delta": _real,
    },
}


def flaw(kind: str, detail: Mapping[str, Any]) -> str | None:
    """What is wrong with the form of a detail, in a few words; None if nothing is."""
    form = FORMS[kind]
    if set(detail) != set(form):
        odd = sorted(set(detail) ^ set(form))
        return f"a {kind} entry and {odd[0]!r} do not go together"
    for name, is_formed in form.items():
        if not is_formed(detail[name]):
            return f"{name} of a {kind} entry cannot be {str(detail[name])[:40]!r}"
    return None
