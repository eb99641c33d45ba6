"""A compiled pipeline: its name, what compiled it, the parameters that it takes, and the version that it becomes."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from deerfield import __version__
from deerfield.errors import InvalidInput
from deerfield.gate.rules import rules_of
from deerfield.runfile import spec_of

AGAIN = "compile it with deerfield pipelines compile"
STAMP = "compiled_by"  # the parameter of every task that says which version compiled it
RUN, RULES = "run", "rules"  # the parameters that are the text of a run file, and of the gate's rules
AT_SITES = "evaluate_at_sites"  # the parameter that is an epsilon
NUMBERS = ("NUMBER_INTEGER", "NUMBER_DOUBLE")
KINDS: Mapping[str, tuple[str, type | tuple[type, ...]]] = {
    "STRING": ("text", str),
    "NUMBER_INTEGER": ("a whole number", int),
    "NUMBER_DOUBLE": ("a number", (int, float)),
    "BOOLEAN": ("true or false", bool),
    "LIST": ("a list", list),
    "STRUCT": ("a mapping", dict),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """What a pipeline asks for."""

    kind: str  # as in the compiled pipeline: STRING, NUMBER_INTEGER, ...
    required: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One compiled pipeline, as it lies in a file."""

    path: Path
    name: str
    version: str  # deerfield's version and the sha256 of the file
    parameters: Mapping[str, Parameter]


def read(path: Path) -> Package:
    """The compiled pipeline in `path`.

    Raises:
        InvalidInput: it cannot be read, is no compiled pipeline, or another version of deerfield compiled it.
    """
    document: Any = None
    try:
        data = path.read_bytes()
        document = next(yaml.safe_load_all(data), None)  # a second document is about the platform
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror}); it ought to be a compiled pipeline") from None
    except (yaml.YAMLError, ValueError):
        pass  # said below, as of any other file
    if path.suffix not in (".yaml", ".yml") or not _is_pipeline(document):
        raise InvalidInput(f"{path} is no compiled pipeline (a .yaml with pipelineInfo and root); {AGAIN}")
    stamps = set(_stamps(document))
    if not stamps:
        raise InvalidInput(f"{path} does not say which version of deerfield compiled it; {AGAIN}")
    if stamps != {__version__}:
        other = ", ".join(sorted(stamps - {__version__}))
        raise InvalidInput(f"{path} was compiled by deerfield {other}, and this is {__version__}; {AGAIN}")
    version = f"{__version__}-{sha256(data).hexdigest()}".replace("+", "-")  # KFP may keep it as a Kubernetes name
    return Package(path=path, name=document["pipelineInfo"]["name"], version=version, parameters=_parameters(document))


def _is_pipeline(document: Any) -> bool:
    if not isinstance(document, dict) or not isinstance(document.get("root"), dict):
        return False
    info = document.get("pipelineInfo")
    return isinstance(info, dict) and isinstance(info.get("name"), str)


def _stamps(node: Any) -> Iterator[str]:
    """Every constant that a task is given under the name of the stamp, however deep its graph lies."""
    if isinstance(node, dict):
        given = node.get(STAMP)
        if isinstance(given, dict) and isinstance(given.get("runtimeValue"), dict):
            yield str(given["runtimeValue"].get("constant"))
        for below in node.values():
            yield from _stamps(below)


def _parameters(document: Mapping[str, Any]) -> dict[str, Parameter]:
    declared = document["root"].get("inputDefinitions", {}).get("parameters", {})
    return {
        name: Parameter(
            kind=about["parameterType"], required="defaultValue" not in about and not about.get("isOptional", False)
        )
        for name, about in declared.items()
    }


def read_all(paths: Iterable[Path]) -> dict[str, Package]:
    """The compiled pipelines in `paths` by name; raises InvalidInput as `read`, or where two have one name."""
    found: dict[str, Package] = {}
    for path in paths:
        package = read(path)
        if package.name in found:
            raise InvalidInput(
                f"{path} and {found[package.name].path} are both called {package.name!r}; give one of them"
            )
        found[package.name] = package
    return found


def check(package: Package, given: Mapping[str, Any], where: str) -> None:
    """Holds the values of `given` against what the pipeline takes; run file and rules are read now, not when it is due.

    Raises:
        InvalidInput: one is unknown or of another kind, one without a default is missing, or the run file, the rules or
            the epsilon for the sites' scores are wrong; `where` it was written.
    """
    for name, value in given.items():
        _check_kind(_known(package, name, where).kind, value, f"{where}: parameter {name!r}")
    missing = [name for name, about in package.parameters.items() if about.required and name not in given]
    if missing:
        names = ", ".join(map(repr, missing))
        said = f"parameter {names}, which has" if len(missing) == 1 else f"parameters {names}, which have"
        raise InvalidInput(f"{where}: pipeline {package.name!r} needs {said} no default")
    if RUN in given and package.parameters[RUN].kind == "STRING":
        spec = spec_of(given[RUN], f"{where}: parameter {RUN!r}")
        if not spec.adapter or spec.model.digest is None:
            raise InvalidInput(
                f"{where}: parameter {RUN!r} does not describe its base model (model: digest, adapter); give the run "
                "file that deerfield runs describe writes"
            )
    if RULES in given and package.parameters[RULES].kind == "STRING":
        rules_of(given[RULES], f"{where}: parameter {RULES!r}")
    if AT_SITES in given and not 0 <= given[AT_SITES] < math.inf:
        raise InvalidInput(f"{where}: parameter {AT_SITES!r} is {given[AT_SITES]:g}; it must be an epsilon, or 0")


def _known(package: Package, name: str, where: str) -> Parameter:
    if name in package.parameters:
        return package.parameters[name]
    near = get_close_matches(name, package.parameters, n=1, cutoff=0.5)
    known = ", ".join(sorted(package.parameters)) or "none"
    hint = f"did you mean {near[0]!r}?" if near else f"it takes {known}"
    raise InvalidInput(f"{where}: pipeline {package.name!r} has no parameter {name!r}; {hint}")


def _check_kind(kind: str, value: Any, where: str) -> None:
    said, types = KINDS.get(kind, (kind, object))
    misplaced = isinstance(value, bool) and kind in NUMBERS  # to Python, True is an int
    if not isinstance(value, types) or misplaced or (isinstance(value, float) and not math.isfinite(value)):
        raise InvalidInput(
            f"{where} is {value!r}; it must be {said}" + ("; put it in quotes" if kind == "STRING" else "")
        )


def given(package: Package, values: Iterable[str], files: Iterable[str]) -> dict[str, Any]:
    """The parameters of a command: NAME=VALUE, text as it stands and the others as JSON; NAME=FILE, the file's text.

    Raises:
        InvalidInput: as in `check`; or one comes twice, or a file cannot be read.
    """
    found: dict[str, Any] = {}
    for option, read, assignments in (("--parameter", _value, values), ("--file", _text, files)):
        for assignment in assignments:
            name, equals, text = assignment.partition("=")
            if not equals or name in found:
                why = "comes twice" if equals else "is no NAME=VALUE"
                raise InvalidInput(f"{option} {assignment[:60]!r} {why}; write each parameter once, such as run=notes")
            kind = _known(package, name, f"{option} {assignment[:60]!r}").kind
            found[name] = read(kind, text, f"{option} {assignment[:60]!r}")
    check(package, found, str(package.path))
    return found


def _value(kind: str, text: str, where: str) -> Any:
    try:
        return text if kind == "STRING" else json.loads(text)
    except ValueError:
        raise InvalidInput(f"{where}: it must be {KINDS.get(kind, (kind,))[0]}, as JSON has it") from None


def _text(kind: str, path: str, where: str) -> str:
    return text_of(Path(path), where)


def text_of(path: Path, where: str) -> str:
    """The text of a file that is the value of a parameter; raises InvalidInput where there is none."""
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise InvalidInput(f"{where}: {path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{where}: {path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
