"""Reads a JSON document whole and strictly: what is wrong with one is a sentence that names the file and the key."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Strict

from deerfield.errors import InvalidInput
from deerfield.runfile import parse

LARGEST = 64_000_000  # bytes of a document; a larger one is none of ours

Number = Annotated[float, Strict()]  # no text, and no truth value
Whole = Annotated[int, Strict()]
Truth = Annotated[bool, Strict()]


class Part(BaseModel):
    """A part of a document: frozen; a key that it does not know is left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Document(Part):
    """A whole document, which says by which `schema` it was written."""

    WHAT: ClassVar[str]  # it is, after "it ought to be"
    SCHEMA: ClassVar[int | None] = 1  # that is read here; None: it has none


Found = TypeVar("Found", bound=Document)


def read(document: type[Found], path: Path, where: str = "") -> Found:
    """The document in a file, which errors call `where`, or else by its path.

    Raises:
        InvalidInput: the file cannot be read, or is no such document.
    """
    where = where or str(path)
    return parsed(document, content(path, document.WHAT, where), where)


def content(path: Path, what: str, where: str = "") -> bytes:
    """The bytes of a file that ought to be `what`; raises InvalidInput where it cannot be read, or is too large."""
    where = where or str(path)
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise InvalidInput(f"{where} has {size} bytes, and the limit is {LARGEST}; it ought to be {what}")
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{where} cannot be read: {error.strerror}; it ought to be {what}") from error


def parsed(document: type[Found], content: bytes | str, where: str) -> Found:
    """The document that `content` holds; raises InvalidInput, which begins with `where`, if it holds none."""
    return of(document, _json(content, where, document.WHAT), where)


def of(document: type[Found], found: Any, where: str) -> Found:
    """As `parsed`, of what JSON was read as."""
    if not isinstance(found, dict):
        raise InvalidInput(f"{where} is no JSON object but {type(found).__name__}; it ought to be {document.WHAT}")
    schema = found.get("schema")
    if document.SCHEMA is not None and (schema != document.SCHEMA or isinstance(schema, bool)):
        has = f"schema {str(schema)[:40]!r}" if "schema" in found else "no schema"
        raise InvalidInput(
            f"{where} has {has}, and this version of deerfield reads {document.SCHEMA}: it ought to be {document.WHAT}"
        )
    return parse(document, found, where)


def _json(content: bytes | str, where: str, what: str) -> Any:
    try:
        text = content if isinstance(content, str) else content.decode()
        return json.loads(text, parse_constant=_no_number, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{where} is no JSON ({error}); it ought to be {what}") from None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON's")


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object; of two equal keys each reader could take another one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)[:80]!r} stands there twice")
    return found
