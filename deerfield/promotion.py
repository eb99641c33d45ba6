"""Which version of a model is its champion, how it became that, and the verdict that it became it by."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["promotion", "rollback", "by_hand"]
State: TypeAlias = Literal["OPEN", "MOVING", "DONE", "REFUSED"]  # MOVING: from here on the alias may be moved already


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What became of one rule of a gate."""

    rule: str
    passed: bool
    value: float | None
    limit: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A gate's word on a version, against the champion that it was compared with."""

    model: str
    version: str
    expected_champion: str  # empty: there was none
    passed: bool
    rules: Sequence[Rule]
    text: str  # JSON, as it came
    sha256: str  # of the text


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """A model's champion behind a call and before it, as versions; empty: there is none."""

    model: str
    champion: str
    previous: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionRecord:
    """One entry in a model's history: a promotion, a rollback, or a move of the alias by hand that was found."""

    number: int  # grows over all models
    model: str
    kind: Kind
    state: State
    version: str  # that was to become champion
    expected_champion: str
    previous: str = ""  # the champion before
    champion: str = ""  # the champion behind it; as before where the verdict was refused
    passed: bool = False  # what the verdict says
    verdict_sha256: str = ""
    reason: str = ""  # of a rollback
    detail: str = ""  # why it was refused
    operator: str = ""
    began_at: float = 0.0  # seconds since the epoch
    ended_at: float = 0.0  # 0: it has not
