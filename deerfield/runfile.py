"""Reads a run file: a `RunSpec`, and the `embedded:` section that stands for the sites' policies on one machine."""

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from deerfield.errors import InvalidInput
from deerfield.runspec import DELTA_LIMIT, RunSpec, Section

T = TypeVar("T", bound=BaseModel)


class _Yaml(yaml.SafeLoader):
    """YAML as people write it: `off`, `no` and `yes` are words (`regulator: off`, a label `no`), not truth values."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML reads it from the class)
        key: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for key, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As PyYAML's, where the second of two equal keys would win without a word."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value} stands there twice; keep one of them", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Yaml.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"), list("tf"))


class Source(Section):
    """Where a population's examples are, and which columns mean what."""

    path: str = Field(description="csv, json lines, parquet or npz file, folder of images, or hub id")
    split: str = Field("train", description="the split of a folder or hub id that has several")
    input: str = Field("text", description="column of the text or image")
    label: str = Field("label", description="column of the label")
    patient: str | None = Field(None, description="column of the patient or group: never split over sites or splits")
    site: str | None = Field(None, description="column of the hospital, for partition: column")
    rows: str | None = Field(None, description="npy file of the row numbers to use; default: all rows")


class Partition(Section):
    """How one data set becomes several sites."""

    kind: Literal["column", "dirichlet", "iid"] = Field("iid", description="by the site column, skewed, or even")
    sites: int = Field(3, ge=1, le=1000, description="number of sites (kinds dirichlet and iid)")
    alpha: float = Field(0.5, gt=0, description="dirichlet: small is skewed")
    minimum: int = Field(
        20, ge=1, description="fewest of what the run protects, patients or else examples, that a site may train on"
    )
    at_most: int | None = Field(None, ge=1, description="examples kept of each site, drawn by the seed")

    @model_validator(mode="after")
    def _keeps_enough(self) -> "Partition":
        if self.at_most is not None and self.at_most < self.minimum:
            raise ValueError(f"at_most: {self.at_most} is below minimum: {self.minimum}")
        return self


class Budget(Section):
    """What the population of each site may spend in its life, where its ledgers are to outlive the run."""

    ledgers: str = Field(description="folder of the sites' ledgers, kept from run to run")
    epsilon: float = Field(gt=0, le=1000, description="of all runs together")
    delta: float = Field(DELTA_LIMIT, gt=0, le=DELTA_LIMIT, description="of all runs together; their deltas add up")
    filter: Literal["sum", "renyi"] = Field("sum", description="how runs add up")
    order: float | None = Field(None, gt=1, le=256, description="renyi: its order, fixed in advance; such as 8")


class Embedded(Section):
    """What a person with all the data on one machine decides; on a cluster each hospital's policy does."""

    base: str | None = Field(
        None, description="the base model here: folder, hub id or package:NAME; default model.base"
    )
    source: Source = Field(description="the data set of all sites together")
    partition: Partition = Field(Partition(), description="how it becomes several sites")
    validation: float = Field(0.2, gt=0, lt=1, description="share of the patients held out of training, for everyone")
    units_low: int | None = Field(
        None, ge=1, description="public lower bound on a site's units; default: from the data"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU where there is one")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto takes bf16 autocast on a GPU")
    threads: int = Field(1, ge=1, le=256, description="CPU threads of each site")
    lost_after_s: float = Field(30.0, ge=10, description="silence after which a site that died is not waited for")
    metrics: Literal["none", "dp", "clear"] = Field(
        "none",
        description="dp: sites report accuracy under noise, charged to the budget; clear: their loss, needs unit none",
    )
    site_validation: float = Field(
        0.0, ge=0, lt=1, description="metrics dp: share of each site's own patients that it keeps for its reports"
    )
    budget: Budget | None = Field(None, description="lifetime budgets kept from run to run; default: thrown away")

    @model_validator(mode="after")
    def _reports_on_something(self) -> "Embedded":
        if (self.metrics == "dp") != (self.site_validation > 0):
            raise ValueError(
                "site_validation: metrics dp needs a share above 0, such as 0.1, and nothing else uses one"
            )
        if self.site_validation and self.source.patient is None:
            raise ValueError(
                "source: patient: site_validation keeps each patient, or record, in or out by its own name; name the "
                "column that has it"
            )
        return self

    @model_validator(mode="after")
    def _names_the_site_column(self) -> "Embedded":
        if self.partition.kind == "column" and self.source.site is None:
            raise ValueError("partition: kind 'column' needs source: site: the column that names the hospital")
        return self


class RunFile(RunSpec):
    """One YAML file: the run, and how to try it on one machine."""

    embedded: Embedded = Field(description="how to try the run on one machine")

    @model_validator(mode="after")
    def _reports_loss_only_without_a_guarantee(self) -> "RunFile":
        if self.embedded.metrics == "clear" and self.privacy.unit != "none":
            raise ValueError(
                "embedded: metrics 'clear' makes every epsilon infinite; write metrics: none or unit: none"
            )
        if self.embedded.metrics == "dp" and self.privacy.unit == "site":
            raise ValueError("embedded: metrics 'dp' counts examples, which unit site hides whole; write metrics: none")
        return self

    @property
    def spec(self) -> RunSpec:
        """The run without its embedded section: what the aggregator and the sites see."""
        return RunSpec.model_validate(self.model_dump(exclude={"embedded"}))


def load(path: Path) -> RunFile:
    """Reads and validates a run file; relative paths in it are relative to its folder.

    Raises:
        InvalidInput: one sentence that names the key, its value, the limit and what to do.
    """
    return resolve(parse(RunFile, _run(path), str(path)), path.resolve().parent)


def load_spec(path: Path) -> RunSpec:
    """Reads a run file for a site that has its own policy: its `embedded:` section, if any, plays no part.

    Raises:
        InvalidInput: as in `load`.
    """
    return _public(_run(path), str(path))


def spec_of(text: str, where: str) -> RunSpec:
    """As `load_spec`, of a run file's text; `where` names it in errors."""
    return _public(read_mapping(text, where, "a run file", "name"), where)


def _public(run: dict[str, Any], where: str) -> RunSpec:
    return parse(RunSpec, {key: value for key, value in run.items() if key != "embedded"}, where)


def _run(path: Path) -> dict[str, Any]:
    return mapping(path, "a run file", "name")


def mapping(path: Path, what: str, key: str) -> dict[str, Any]:
    """The keys and values of a YAML file that ought to be `what`, which has a `key`.

    Raises:
        InvalidInput: it cannot be read, or is no mapping; broken YAML is named by line and column.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}; it ought to be {what}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    return read_mapping(text, str(path), what, key)


def read_mapping(text: str, where: str, what: str, key: str) -> dict[str, Any]:
    """As `mapping`, of the text itself; `where` names it in errors."""
    try:
        data = yaml.load(text, Loader=_Yaml)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-02-30
        raise InvalidInput(f"{where}{_broken(error)}") from error
    if not isinstance(data, dict):
        found = "empty" if data is None else "a list" if isinstance(data, list) else f"{data!r}"
        raise InvalidInput(f"{where}: {what} is a mapping of keys, such as {key}:, and this is {found}")
    return data


def _broken(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark) is not None:
        what = "" if isinstance(error, yaml.constructor.ConstructorError) else "not YAML: "
        return f", line {mark.line + 1}, column {mark.column + 1}: {what}{error.problem}"
    return f": not YAML: {str(error).splitlines()[0]}"


def parse(model: type[T], data: Any, where: str) -> T:
    """Validates `data` as `model`; turns the first thing that is wrong into one sentence.

    Raises:
        InvalidInput: as in `load`.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InvalidInput(f"{where}: {_sentence(model, error)}") from None


def source_of(text: str, where: str) -> Source:
    """A source as one argument says it: its path, or a mapping of `source:` keys in YAML or JSON.

    Raises:
        InvalidInput: as in `load`; `where` names the argument.
    """
    try:
        data = yaml.load(text, Loader=_Yaml)
    except (yaml.YAMLError, ValueError):
        data = text  # no YAML is still a path
    return parse(Source, data if isinstance(data, dict) else {"path": text}, where)


def resolve(run: RunFile, folder: Path) -> RunFile:
    """The run with the paths of its embedded section made absolute where they exist beside the file."""

    def local(value: str | None) -> str | None:
        return str((folder / value).resolve()) if value and (folder / value).exists() else value

    source = run.embedded.source
    source = source.model_copy(update={"path": local(source.path), "rows": local(source.rows)})
    budget = run.embedded.budget
    kept = budget and budget.model_copy(update={"ledgers": str((folder / budget.ledgers).resolve())})
    embedded = run.embedded.model_copy(update={"source": source, "base": local(run.embedded.base), "budget": kept})
    return run.model_copy(update={"embedded": embedded})


def _sentence(model: type[BaseModel], error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    keys = [str(key) for key in first["loc"]]
    where = ".".join(keys)
    if first["type"] == "extra_forbidden":
        known = sorted(_section(model, first["loc"][:-1]).model_fields)
        near = get_close_matches(keys[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys here are {', '.join(known)}"
        return f"unknown key {where!r}; {hint}"
    if first["type"] == "missing":
        return f"{where} is missing"
    if first["type"] == "model_type":  # pydantic would name our class
        return f"{where or 'this'} is {first['input']!r}: it must be a mapping of keys"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if first["type"] == "value_error":
        return f"{where}: {message}" if where else message
    return f"{where} is {first['input']!r}: {message[0].lower()}{message[1:]}"


def _section(model: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel]:
    """The model that the keys of `loc` lead to."""
    for key in loc:
        annotation = model.model_fields[str(key)].annotation if str(key) in model.model_fields else None
        for candidate in (annotation, *get_args(annotation)):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                model = candidate
    return model
