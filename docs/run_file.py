"""Writes docs/run-file.md from the models that validate run files: `python docs/run_file.py > docs/run-file.md`."""

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from deerfield.runfile import RunFile

HEAD = """# The run file

One YAML file says everything about a run. Unknown keys are refused. This page is generated from the models that
validate the file (`deerfield/runspec.py`, `deerfield/runfile.py`) and a test holds it against them.

`embedded:` is for one machine: it stands for what each hospital's own policy says on a cluster, and no part of it
reaches the aggregator. Relative paths in it are relative to the run file. Options of a strategy stand beside its name,
as in `strategy: {name: deer, regulator: off}`; `deerfield strategies` lists them.
"""


def sections(model: type[BaseModel], title: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """Every model inside `model`, with the key that leads to it."""
    yield title, model
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from sections(field.annotation, f"{title}.{name}".removeprefix("top level."))


def row(name: str, field: FieldInfo) -> str:
    """One key: type, default, limits, meaning."""
    default = "required" if field.is_required() else f"`{_plain(field.default)}`"
    meaning = " ".join(filter(None, (field.description, _limits(field))))
    return f"| `{name}` | {_type(field.annotation)} | {default} | {meaning} |"


def _limits(field: FieldInfo) -> str:
    signs = {Ge: ("ge", "≥"), Gt: ("gt", ">"), Le: ("le", "≤"), Lt: ("lt", "<")}
    known = [(signs[type(limit)], limit) for limit in field.metadata if type(limit) in signs]
    said = [f"{sign} {getattr(limit, key):g}" for (key, sign), limit in known]
    return f"({', '.join(said)})" if said else ""


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    origin = get_origin(annotation)
    if origin is tuple:
        return "list"
    if origin is not None and getattr(origin, "__name__", "") in ("Mapping", "dict"):
        return "mapping"
    parts = [part for part in get_args(annotation) if part is not type(None) and isinstance(part, type)]
    plain = annotation if isinstance(annotation, type) else parts[0] if parts else str
    return {int: "integer", float: "number", str: "text", bool: "yes/no"}.get(plain, plain.__name__)


def _plain(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return "none" if value is None else str(value)


def markdown() -> str:
    """The whole page."""
    lines = [HEAD]
    for title, model in sections(RunFile, "top level"):
        lines.append(f"## {title}\n\n{(model.__doc__ or '').strip()}\n")
        lines.append("| key | type | default | meaning |\n|---|---|---|---|")
        lines.extend(row(name, field) for name, field in model.model_fields.items())
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown(), end="")
