"""The strategies that a run file can name. A new one is a file beside this one and a word in `STRATEGIES`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from inspect import Parameter, signature
from typing import Any, TypeAlias, get_args

from pydantic import TypeAdapter, ValidationError

from deerfield.errors import InvalidInput
from deerfield.runspec import Model, Privacy, RunSpec
from deerfield.strategies.central import central
from deerfield.strategies.deer import deer
from deerfield.strategies.evaluate import evaluate
from deerfield.strategies.fedavg import fedavg
from deerfield.strategies.ffa import ffa
from deerfield.strategies.head import head
from deerfield.strategies.local import local
from deerfield.strategy import Declaration, Strategy

# Builds a strategy for a run, as `f(spec, *, option=default, ...)`: its keyword-only parameters are the options of the
# run file, and the first line of its docstring is its title.
Factory: TypeAlias = Callable[..., Strategy]

STRATEGIES: Mapping[str, Factory] = {f.__name__: f for f in (deer, ffa, fedavg, head, local, central)}
KNOWN: Mapping[str, Factory] = {**STRATEGIES, evaluate.__name__: evaluate}  # with the one that trains nothing

_ANY = RunSpec(
    name="any",
    population="any",
    labels=("no", "yes"),
    model=Model(base="any", input="text"),
    privacy=Privacy(unit="none"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A strategy option: its default, and the values that it may take (empty: any of the default's type)."""

    default: str | int | float | bool
    allowed: tuple[str | int | float | bool, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What people should know of a strategy before they name it in a run file."""

    name: str
    title: str
    declares: Declaration
    options: Mapping[str, Option]


def make(spec: RunSpec, known: Mapping[str, Factory] = KNOWN) -> Strategy:
    """Builds the strategy of `known` that `spec.strategy` names, with its options.

    Raises:
        InvalidInput: no such strategy, option or value, or a privacy unit without a guarantee; says which there are.
    """
    name = str(spec.strategy["name"])
    if name not in known:
        raise InvalidInput(f"strategy: {name!r} is unknown; {_hint(name, tuple(known))}")
    given = {option: value for option, value in spec.strategy.items() if option != "name"}
    strategy = known[name](spec, **_validated(name, given, _parameters(known[name])))
    if spec.privacy.unit not in strategy.declares.units:
        units = ", ".join(sorted(strategy.declares.units))
        raise InvalidInput(f"strategy: {name} has no guarantee for unit {spec.privacy.unit!r}; it has for {units}")
    if spec.federation.robust != "none" and not strategy.declares.robust:
        able = ", ".join(each for each, factory in known.items() if factory(_ANY).declares.robust)
        raise InvalidInput(
            f"federation: robust: {name} has no {spec.federation.robust}, because coordinates of its updates do not "
            f"compare between sites, or nothing is mixed; leave it out, or choose one of {able}"
        )
    return strategy


def describe(name: str) -> Description:
    """Describes a registered strategy; `declares` is that of a run with every default."""
    factory = KNOWN[name]
    title = (factory.__doc__ or name).splitlines()[0]
    options = {p.name: Option(default=p.default, allowed=get_args(p.annotation)) for p in _parameters(factory).values()}
    return Description(name=name, title=title, declares=factory(_ANY).declares, options=options)


def _parameters(factory: Factory) -> Mapping[str, Parameter]:
    found = signature(factory).parameters.values()
    return {parameter.name: parameter for parameter in found if parameter.kind is Parameter.KEYWORD_ONLY}


def _validated(name: str, given: Mapping[str, Any], parameters: Mapping[str, Parameter]) -> Mapping[str, Any]:
    for option in given:
        if option not in parameters:
            raise InvalidInput(f"strategy: {name} has no option {option!r}; {_hint(option, tuple(parameters))}")
    return {option: _value(f"{name}: {option}", value, parameters[option]) for option, value in given.items()}


def _value(where: str, value: Any, parameter: Parameter) -> Any:
    allowed = get_args(parameter.annotation)
    if value is False and "off" in allowed:  # YAML 1.1 reads a bare off as false
        return "off"
    try:
        return TypeAdapter(parameter.annotation).validate_python(value, strict=True)
    except ValidationError as error:
        known = f"allowed are {', '.join(map(repr, allowed))}" if allowed else error.errors()[0]["msg"]
        raise InvalidInput(f"strategy: {where} is {value!r}; {known}") from None


def _hint(word: str, known: Sequence[str]) -> str:
    near = get_close_matches(word, known, n=1, cutoff=0.5)
    every = f"known are {', '.join(known)}" if known else "it has none"
    return f"did you mean {near[0]!r}? {every}" if near else every
