"""The part of the codec for models: verdicts of gates, champions and their history, files about a run."""

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NoReturn, get_args

from deerfield.errors import BadRequest, InvalidInput
from deerfield.promotion import Kind, Promotion, PromotionRecord, Rule, State, Verdict
from deerfield.wire import federation_pb2 as pb
from deerfield.wire import limits
from deerfield.wire.checks import at_most, named, one_of

KINDS: Mapping[str, Kind] = {word: word for word in get_args(Kind)}
STATES: Mapping[str, State] = {word: word for word in get_args(State)}
SCHEMA = 1  # of a verdict
RULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.: -]{0,99}")  # it becomes part of the name of a tag
PATH = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*/){0,3}[A-Za-z0-9_][A-Za-z0-9_.-]*")
PATH_CHARS = 128
OURS = frozenset({"run.json", "input_example.json", "lineage.json", "verdict.json", "phases", "ledger", "adapter"})


def model_name(text: str) -> str:
    """The name of a model; raises BadRequest if it is empty or absurd."""
    return named(text, "a model's name")


def version_number(text: str, what: str) -> str:
    """A version; raises BadRequest for what is no decimal number."""
    if not re.fullmatch(r"[1-9][0-9]{0,17}", text, re.ASCII):
        raise BadRequest(f"{what} is a version of MLflow's, a number from 1 on, not {text[:40]!r}")
    return text


def version_or_none(text: str, what: str) -> str:
    """A version, or the empty text for none."""
    return version_number(text, what) if text else ""


def decode_verdict(message: pb.PromoteRequest) -> Verdict:
    """The verdict that a promotion comes with; raises as `read_verdict`."""
    return read_verdict(message.model, message.version, message.expected_champion, message.verdict)


def read_verdict(model: str, version: str, expected_champion: str, text: str) -> Verdict:
    """The verdict on a version, compared with a champion.

    Raises:
        InvalidInput: it is no verdict of a gate, or is about something else than the call says.
        BadRequest, TooLarge: a name, a version or a size that cannot be.
    """
    at_most(len(text.encode()), limits.VERDICT_BYTES, "bytes in a verdict")
    raw = _object(text)
    _about(raw, "schema", SCHEMA)
    _about(raw, "model", model_name(model))
    _about(raw, "version", version_number(version, "version"))
    _about(raw, "expected_champion", version_or_none(expected_champion, "expected_champion"))
    rules = raw.get("rules")
    if not isinstance(rules, list) or not rules:
        raise InvalidInput("verdict: rules is no list of what became of each rule; send what the gate has written")
    at_most(len(rules), limits.RULES, "rules in a verdict")
    judged = [_rule(each) for each in rules]
    if len({each.rule for each in judged}) < len(judged):
        raise InvalidInput("verdict: a rule stands there twice; send what the gate has written")
    passed = raw.get("passed")
    if not isinstance(passed, bool) or passed != all(rule.passed for rule in judged):
        raise InvalidInput(
            f"verdict: passed is {passed!r}, and its rules say otherwise; send what the gate has written"
        )
    return Verdict(
        model=model,
        version=version,
        expected_champion=expected_champion,
        passed=passed,
        rules=judged,
        text=text,
        sha256=sha256(text.encode()).hexdigest(),
    )


def attachment_name(text: str) -> str:
    """The path of an artifact that a caller may write; raises InvalidInput for any other."""
    if len(text) > PATH_CHARS or not PATH.fullmatch(text):
        raise InvalidInput(
            f"name: {text[:80]!r} is no path of up to {PATH_CHARS} letters, digits, _ . and -, with up to 3 folders; "
            "write such as evaluation/report.html"
        )
    if (first := text.partition("/")[0]) in OURS:
        raise InvalidInput(f"name: {first} is written by the aggregator itself; choose another name")
    return text


def encode_promotion(promotion: Promotion) -> pb.Promotion:
    """A champion and the one before."""
    return pb.Promotion(model=promotion.model, champion=promotion.champion, previous=promotion.previous)


def decode_promotion(message: pb.Promotion) -> Promotion:
    """A champion and the one before."""
    return Promotion(
        model=model_name(message.model),
        champion=version_or_none(message.champion, "champion"),
        previous=version_or_none(message.previous, "previous"),
    )


def encode_record(record: PromotionRecord) -> pb.PromotionRecord:
    """One entry in a model's history."""
    return pb.PromotionRecord(**{name: getattr(record, name) for name in record.__dataclass_fields__})


def decode_record(message: pb.PromotionRecord) -> PromotionRecord:
    """One entry in a model's history; raises BadRequest for one that cannot be."""
    fields = {name: getattr(message, name) for name in PromotionRecord.__dataclass_fields__}
    kind, state = one_of(message.kind, KINDS, "kind"), one_of(message.state, STATES, "state")
    return PromotionRecord(**{**fields, "kind": kind, "state": state})


def _object(text: str) -> Mapping[str, Any]:
    try:
        raw = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"verdict: it is no JSON ({error}); send what the gate has written") from None
    if not isinstance(raw, dict):
        raise InvalidInput(f"verdict: it is no JSON object but {type(raw).__name__}; send what the gate has written")
    return raw


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON's")


def _about(raw: Mapping[str, Any], key: str, expected: object) -> None:
    if raw.get(key) != expected or isinstance(raw.get(key), bool):
        raise InvalidInput(
            f"verdict: {key} is {str(raw.get(key))[:80]!r}, and the call says {expected!r}; run the gate for this call"
        )


def _rule(raw: object) -> Rule:
    if not isinstance(raw, dict) or not isinstance(name := raw.get("rule"), str) or not RULE.fullmatch(name):
        raise InvalidInput(
            f"verdict: {str(raw)[:80]!r} is no rule; its name stands in `rule`: up to 100 letters, digits, spaces "
            "and _ . : -"
        )
    if not isinstance(raw.get("passed"), bool):
        raise InvalidInput(f"verdict: rule {name} does not say in `passed` whether it passed; write true or false")
    return Rule(rule=name, passed=raw["passed"], value=_number(raw, "value"), limit=_number(raw, "limit"))


def _number(raw: Mapping[str, Any], key: str) -> float | None:
    found = raw.get(key)
    if found is not None and (isinstance(found, bool) or not isinstance(found, int | float)):
        raise InvalidInput(f"verdict: {key} of rule {raw['rule']} is {str(found)[:40]!r}; write a number or null")
    return found
