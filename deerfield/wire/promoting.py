"""The part of the codec for models: verdicts of gates, champions and their history, files about a run."""

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import get_args

from deerfield.documents import reading, verdict
from deerfield.errors import BadRequest, InvalidInput
from deerfield.promotion import Kind, Promotion, PromotionRecord, Rule, State, Verdict
from deerfield.wire import federation_pb2 as pb
from deerfield.wire import limits
from deerfield.wire.checks import at_most, named, one_of

KINDS: Mapping[str, Kind] = {word: word for word in get_args(Kind)}
STATES: Mapping[str, State] = {word: word for word in get_args(State)}
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
    found = reading.parsed(verdict.Verdict, text, "verdict")
    _about("model", found.model, model_name(model))
    _about("version", found.version, version_number(version, "version"))
    _about("expected_champion", found.expected_champion, version_or_none(expected_champion, "expected_champion"))
    at_most(len(found.rules), limits.RULES, "rules in a verdict")
    return Verdict(
        model=model,
        version=version,
        expected_champion=expected_champion,
        passed=found.passed,
        rules=[Rule(rule=each.rule, passed=each.passed, value=each.value, limit=each.limit) for each in found.rules],
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


def _about(key: str, found: str, expected: str) -> None:
    if found != expected:
        raise InvalidInput(
            f"verdict: {key} is {found[:80]!r}, and the call says {expected!r}; run the gate for this call"
        )
