"""Writes the pages on the files that people write, from the models that validate them.

`python docs/run_file.py > docs/run-file.md` and `python docs/run_file.py policy > docs/policy.md`.
"""

import sys
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from deerfield.runfile import RunFile
from services.client.policy import Policy

HEAD = """# The run file

One YAML file says everything about a run. Unknown keys are refused. This page is generated from the models that
validate the file (`deerfield/runspec.py`, `deerfield/runfile.py`) and a test holds it against them.

`embedded:` is for one machine: it stands for what each hospital's own policy says on a cluster, and no part of it
reaches the aggregator. Relative paths in it are relative to the run file. Options of a strategy stand beside its name,
as in `strategy: {name: deer, regulator: off}`; `deerfield strategies` lists them.
"""

POLICY_HEAD = """# The site's policy

One YAML file that belongs to the hospital: what the public names in a run mean here, and what may be done with it. A
run that asks for more is refused before a record is read, and all that the aggregator hears is the reason's name.
Unknown keys are refused, and so is a site without a policy. `examples/site-policy.yaml` is one to begin with. This
page is generated from the models that validate the file (`services/client/policy.py`) and a test holds it against
them.

A run names a population, never a file: data that no population is bound to cannot be reached. Write absolute paths;
others are relative to the folder that the site is started in.

## Registering a population

```text
deerfield register POLICY --site NAME --state DIR [--population NAME] [--json]
```

looks at the data and prints, for the hospital alone, how many rows and units there are, how many examples a unit has,
and the labels as found. Some things must be mended first, and then the command ends with exit code 2 and no ledger
changes: a column that is missing, rows that say nobody's name where each patient is protected, fewer units than
`units_low` or more than `units_high`. Others are warnings: units above `examples_high`, rows that cannot be used,
fewer than 1,000 units. Declare the bounds with room to spare: they are public, and that a hospital takes part says
that it keeps them.

Then the population's ledger notes a salted commitment to the data: an HMAC-SHA256, under a secret in the state
folder, of the bytes of the file (or of every file of a folder) and of its column mapping. A site hashes its data once
when it starts on a population, and declines a run (`NOT_MAPPED`) whose population was never registered, or whose data
are others than were registered. That does not depend on what is in the data: once registered, a population never
declines because of a record. When the data change or are exported again, register them again; the ledger goes on,
with the budget that is left. A table of paths commits to the table alone, a hub id to its name.

`registration: on_start` is for trials on one machine, and `deerfield run` writes it: what is there when a run starts
is registered, what a person would be told goes to the site's log, and only a missing column stops the site.
"""


def sections(model: type[BaseModel], title: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """Every model inside `model`, with the key that leads to it."""
    yield title, model
    for name, field in model.model_fields.items():
        path, named = f"{title}.{name}".removeprefix("top level."), field.annotation
        if get_origin(named) is Mapping:
            path, named = f"{path}.NAME", get_args(named)[1]
        if isinstance(named, type) and issubclass(named, BaseModel):
            yield from sections(named, path)


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


def markdown(head: str = HEAD, top: type[BaseModel] = RunFile) -> str:
    """The whole page."""
    lines = [head]
    for title, model in sections(top, "top level"):
        lines.append(f"## {title}\n\n{(model.__doc__ or '').strip()}\n")
        lines.append("| key | type | default | meaning |\n|---|---|---|---|")
        lines.extend(row(name, field) for name, field in model.model_fields.items())
        lines.append("")
    return "\n".join(lines)


def policy_markdown() -> str:
    """The page on the policy."""
    return markdown(POLICY_HEAD, Policy)


if __name__ == "__main__":
    print(policy_markdown() if sys.argv[1:] == ["policy"] else markdown(), end="")
