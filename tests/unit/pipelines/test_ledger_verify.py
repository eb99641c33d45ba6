"""`deerfield ledger verify`: a sound ledger in one line, damage with its entry."""

import json

import pytest

from deerfield import keyfile
from deerfield.attestation import public_key
from tests.command import deerfield
from tests.ledger_command import AGGREGATOR, chain, ledger_of, state


def test_a_sound_ledger_is_verified_in_one_line(tmp_path):
    code, said = deerfield("ledger", "verify", state(tmp_path))
    head = chain(tmp_path)[-1]
    assert code == 0
    assert said.count("\n") == 1
    assert said.startswith("sound: 7 entries, 1 run, epsilon ")
    assert f"head {head.sequence} {head.hash}" in said
    assert "2 updates as stored" in said


@pytest.mark.parametrize("entry", [0, 1, 3, 6])
def test_a_flipped_byte_is_named_with_its_entry_and_exits_1(tmp_path, entry):
    path = ledger_of(state(tmp_path))
    lines = path.read_bytes().split(b"\n")
    broken = bytearray(lines[entry])
    broken[len(broken) // 2] ^= 1
    lines[entry] = bytes(broken)
    path.write_bytes(b"\n".join(lines))
    code, said = deerfield("ledger", "verify", tmp_path)
    assert code == 1
    assert said.startswith(f"entry {entry}: ")
    assert "NOT sound" in said


def test_a_stored_update_that_changed_or_is_gone_is_found(tmp_path):
    state(tmp_path)
    one, other = sorted((tmp_path / "vault").iterdir())
    content = bytearray(one.read_bytes())
    content[-1] ^= 1
    one.write_bytes(content)
    other.unlink()
    code, said = deerfield("ledger", "verify", tmp_path)
    assert code == 1
    assert said.count("is not stored, or its content has changed") == 2
    assert one.stem in said
    assert other.stem in said


def test_the_key_can_be_pinned(tmp_path):
    state(tmp_path)
    mine = public_key(keyfile.load(tmp_path / keyfile.SITE))
    assert deerfield("ledger", "verify", tmp_path, "--key", mine)[0] == 0
    code, said = deerfield("ledger", "verify", tmp_path, "--key", public_key(AGGREGATOR))
    assert (code, said[:9]) == (1, "entry 0: ")
    assert deerfield("ledger", "verify", tmp_path, "--key", "abc")[0] == 2


def test_a_torn_last_line_is_said_to_be_one(tmp_path):
    path = ledger_of(state(tmp_path))
    path.write_bytes(path.read_bytes()[:-30])
    code, said = deerfield("ledger", "verify", tmp_path)
    assert code == 1
    assert "entry 6: its line has no end, as a crash leaves it" in said
    code, said = deerfield("ledger", "show", tmp_path, "--json")
    assert (code, len(json.loads(said)["entries"])) == (1, 6)
