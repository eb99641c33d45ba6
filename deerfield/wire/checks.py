"""Whether the smallest parts of a message can be what they claim: hashes, names, counts, closed sets of words."""

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import TypeVar

from deerfield.errors import BadRequest, TooLarge
from deerfield.wire import limits

HEX_DIGITS = set("0123456789abcdef")
SHA256_BYTES = 32
Word = TypeVar("Word")


def at_most(count: int, limit: int, what: str) -> None:
    """Raises TooLarge if there are more than `limit`."""
    if count > limit:
        raise TooLarge(f"{count} {what}; the limit is {limit}")


def one_of(word: str, closed: Mapping[str, Word], what: str) -> Word:
    """The word as a member of its closed set; raises BadRequest for any other."""
    if word not in closed:
        raise BadRequest(f"{what} {word[:40]!r} is not one of {', '.join(map(repr, closed))}")
    return closed[word]


def sha256_name(raw: bytes) -> str:
    """A chunk's name in hex; raises BadRequest if it is no sha256."""
    return exactly(SHA256_BYTES, raw, "a sha256")


def sha256_names(raw: Iterable[bytes]) -> tuple[str, ...]:
    """Chunks' names in hex; raises BadRequest for one that is no sha256."""
    return tuple(sha256_name(sha) for sha in raw)


def sha256_hex(text: str) -> str:
    """A digest that travels in hex; raises BadRequest if it is no sha256."""
    if len(text) != 2 * SHA256_BYTES or not set(text) <= HEX_DIGITS:
        raise BadRequest(f"{text[:80]!r} is no sha256 in hex")
    return text


def exactly(count: int, raw: bytes, what: str) -> str:
    """Bytes of a fixed number in hex; raises BadRequest for another number."""
    if len(raw) != count:
        raise BadRequest(f"{what} has {count} bytes, not {len(raw)}")
    return raw.hex()


def run_id(text: str) -> str:
    """The id of a run; raises BadRequest if it is empty or absurd."""
    return named(text, "a run id")


def population_name(text: str) -> str:
    """The name of a population; raises BadRequest if it is empty or absurd."""
    return named(text, "a population's name")


def tensor_name(text: str) -> str:
    """The name of a tensor; raises BadRequest if it is empty or absurd."""
    return named(text, "a tensor's name")


def detail(text: str) -> str:
    """What a person reads, cut at `limits.DETAIL_CHARS`; PostgreSQL keeps no NUL."""
    return text[: limits.DETAIL_CHARS].replace("\0", "\N{REPLACEMENT CHARACTER}")


def finite_metrics(metrics: Mapping[str, float]) -> Mapping[str, float]:
    """Named numbers, few and finite; raises TooLarge or BadRequest otherwise."""
    at_most(len(metrics), limits.METRICS, "metrics")
    for name, value in metrics.items():
        if not isfinite(value):
            raise BadRequest(f"metric {name[:40]!r} is {value}; metrics are finite")
    return {named(name, "a metric's name"): value for name, value in metrics.items()}


def named(text: str, what: str) -> str:
    """A name for `what`; raises BadRequest if it is empty or absurd."""
    if not 0 < len(text) <= limits.NAME_CHARS:
        raise BadRequest(f"{what} has 1 to {limits.NAME_CHARS} characters, not {len(text)}")
    if "\0" in text:
        raise BadRequest(f"{what} has no NUL in it, as {text[:40]!r} does")
    return text
