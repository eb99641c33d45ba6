"""What a transaction has changed, by name: one name for each edge of the state machine."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from deerfield.exchange import Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of state; `detail` names phase and site where it has them."""

    kind: str
    run: str = ""
    detail: Mapping[str, object] = field(default_factory=dict)


class Changes:
    """Those of one transaction, in their order."""

    def __init__(self) -> None:
        self.made: list[Change] = []

    def note(self, kind: str, run: str = "", **detail: object) -> None:
        """Something has changed."""
        self.made.append(Change(kind=kind, run=run, detail=detail))

    def note_phase(self, kind: str, key: Key, **detail: object) -> None:
        """Something of a phase has changed."""
        named = asdict(key)
        self.note(kind, str(named.pop("run")), **named, **detail)
