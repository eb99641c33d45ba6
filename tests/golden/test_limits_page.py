"""The tables of docs/protocol.md name every limit of the code, and its value."""

import re
from dataclasses import fields
from pathlib import Path

from deerfield.manifest import CHUNK_BYTES
from deerfield.wire import limits
from services.aggregator.bounds import Bounds

PAGE = Path(__file__).resolve().parents[2] / "docs/protocol.md"
UNITS = {"": 1, "s": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
ELSEWHERE = {"PROTOCOL", "LEDGER_ENTRIES"}  # no limit; written as 2^53 beside the table


def rows() -> dict[str, float]:
    text = PAGE.read_text()
    section = text[text.index("## Limits") : text.index("## Refusals")]
    found = {}
    for number, unit, name in re.findall(r"^\|[^|]*\| ([\d,]+) ?(\w*) \| `([^`]+)` \|$", section, re.MULTILINE):
        assert name not in found, f"{name} stands there twice"
        found[name] = int(number.replace(",", "")) * UNITS[unit]
    return found


def test_the_tables_are_the_code():
    agreed = {name: value for name, value in vars(limits).items() if name.isupper() and isinstance(value, int | float)}
    chosen = {f"--{each.name.replace('_', '-')}": each.default for each in fields(Bounds)}
    expected = {**agreed, "CHUNK_BYTES": CHUNK_BYTES, **chosen}
    assert rows() == {name: value for name, value in expected.items() if name not in ELSEWHERE}


def test_the_server_is_told_what_the_tables_say():
    told = dict(Bounds().options())
    assert told["grpc.max_receive_message_length"] == limits.MESSAGE_BYTES
    assert told["grpc.absolute_max_metadata_size"] == limits.METADATA_BYTES
    assert told["grpc.http2.lookahead_bytes"] == limits.UNREAD_BYTES
    assert told["grpc.max_concurrent_streams"] == Bounds().streams
