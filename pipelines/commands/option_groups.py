"""Options that several commands share, as one parameter; imports nothing that takes time."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A command for typer: each parameter of `command` that is a dataclass becomes an option for each of its fields."""
    own = inspect.signature(command).parameters
    kinds = {name: each.annotation for name, each in own.items() if isinstance(each.annotation, type)}
    groups = {name: kind for name, kind in kinds.items() if is_dataclass(kind)}
    fields = {name: inspect.signature(kind).parameters for name, kind in groups.items()}

    @functools.wraps(command)
    def called(**given: Any) -> None:
        made = {name: groups[name](**{field: given.pop(field) for field in fields[name]}) for name in groups}
        command(**made, **given)

    spread = [one for name, each in own.items() for one in fields.get(name, {name: each}).values()]
    shown = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in spread]
    called.__annotations__ = {each.name: each.annotation for each in shown}
    called.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]  # what typer reads
    return called
