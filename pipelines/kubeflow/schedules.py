"""The schedules file: which pipeline runs when, and with what. docs/schedules.md explains its keys."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from deerfield.errors import InvalidInput
from deerfield.runfile import mapping, parse
from deerfield.runspec import Name, Section
from pipelines.compiled.package import Package, check, text_of
from pipelines.kubeflow.cron import checked

MOST = 10  # runs at a time that Kubeflow Pipelines allows a recurring run


class _Strict(Section):
    """A part of a schedules file: no text is taken for a number."""

    model_config = ConfigDict(strict=True)


class Schedule(_Strict):
    """One recurring run."""

    name: Name = Field(description="what the recurring run is called; unique in the file")
    pipeline: str = Field(min_length=1, max_length=128, description="name of a compiled pipeline")
    cron: Annotated[str, AfterValidator(checked)] = Field(description="six fields, seconds first, in UTC")
    parameters: dict[str, Any] = Field({}, description="values of the pipeline's parameters")
    files: dict[str, str] = Field({}, description="parameters whose value is the text of a file, beside this one")
    experiment: Name = Field("Default", description="the experiment of its runs; made where there is none")
    max_concurrency: int = Field(1, ge=1, le=MOST, description="runs at a time")
    catchup: bool = Field(False, description="true: also start what was missed while it was disabled")
    enabled: bool = Field(True, description="false: it is kept, and starts nothing")
    service_account: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")] | None = Field(
        None, description="the Kubernetes account of its pods; default: that of the installation"
    )

    @model_validator(mode="after")
    def _says_each_parameter_once(self) -> "Schedule":
        if twice := sorted(self.parameters.keys() & self.files):
            raise ValueError(f"parameter {twice[0]!r} stands in parameters and in files; keep one of them")
        return self


class Schedules(_Strict):
    """The whole file."""

    schedules: list[Schedule] = Field(description="every recurring run; one that is taken out is deleted")

    @model_validator(mode="after")
    def _names_each_once(self) -> "Schedules":
        names = [schedule.name for schedule in self.schedules]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two schedules are called {twice[0]!r}; give each a name of its own")
        return self


def load(path: Path, packages: Mapping[str, Package]) -> list[Schedule]:
    """The schedules of a file, their `files` read into `parameters`, held against the compiled pipelines.

    Raises:
        InvalidInput: one sentence that names the key or parameter, its value, the limit and what to do.
    """
    found = parse(Schedules, mapping(path, "a schedules file", "schedules"), str(path))
    return [_complete(schedule, packages, path) for schedule in found.schedules]


def _complete(schedule: Schedule, packages: Mapping[str, Package], path: Path) -> Schedule:
    where = f"{path}: schedule {schedule.name!r}"
    if schedule.pipeline not in packages:
        given = ", ".join(sorted(packages)) or "none"
        raise InvalidInput(f"{where}: no compiled pipeline is called {schedule.pipeline!r}; given are {given}")
    texts = {name: text_of(path.parent / file, f"{where}: file of {name!r}") for name, file in schedule.files.items()}
    complete = schedule.model_copy(update={"parameters": {**schedule.parameters, **texts}, "files": {}})
    check(packages[schedule.pipeline], complete.parameters, where)
    return complete
