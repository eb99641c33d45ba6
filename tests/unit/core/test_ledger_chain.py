"""Entries and the chain they make: what is written reads back, and whatever was changed afterwards is found."""

import json
from dataclasses import replace
from math import inf, isclose

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deerfield.ledger import charging
from deerfield.ledger.account import extend, fold
from deerfield.ledger.chain import first_damage, lines_of, walk
from deerfield.ledger.entry import KINDS, Entry, line, parse, seal
from deerfield.ledger.forms import FORMS
from deerfield.ledger.statement import rows
from tests.ledgers import KEY, RENYI, Chain, found, plan, small

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2**60) | st.floats(0, inf) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ENTRIES = st.builds(
    Entry,
    sequence=st.integers(0, 2**40),
    time=st.floats(0, 1e12),
    kind=st.sampled_from(sorted(KINDS)),
    detail=st.dictionaries(st.text(max_size=5), JSON, max_size=4),
    previous=st.binary(min_size=32, max_size=32).map(bytes.hex),
)


@given(ENTRIES)
def test_an_entry_reads_back_as_it_was_written(entry: Entry) -> None:
    text = line(seal(entry, KEY))
    assert text.endswith(b"\n")
    assert text.count(b"\n") == 1
    assert line(parse(text[:-1])) == text


@given(ENTRIES, st.data())
def test_a_line_that_says_the_same_in_other_bytes_is_no_entry(entry: Entry, data: st.DataObject) -> None:
    text = line(seal(entry, KEY))[:-1]
    other = json.dumps(json.loads(text), indent=data.draw(st.sampled_from([None, 1]))).encode()
    with pytest.raises(ValueError, match=r"written as the ledger writes"):
        parse(other)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["task", "commit", "infinite"]), max_size=8))
def test_any_way_of_using_a_run_leaves_a_chain_without_findings(acts: list[str]) -> None:
    chain = Chain()
    chain.run(plan())
    for number, act in enumerate(acts):
        if act == "infinite":
            chain.add("infinite", charging.infinite_detail(f"reason {number}"))
        elif act == "task" and len(chain.account.reservations) < 3:
            chain.task(number)
        elif act == "commit" and (free := set(chain.account.reservations) - set(chain.account.commits)):
            chain.commit(chain.entries[min(free)])
    assert found(chain) == []
    assert len(list(rows(chain.entries))) == len(chain.entries)


@settings(deadline=None)
@given(st.integers(0, 6))
def test_a_fold_may_be_cut_anywhere(where: int) -> None:
    chain = small(RENYI)
    assert extend(fold(chain.entries[: where + 1]), chain.entries[where + 1 :]) == chain.account


def test_entries_that_are_swapped_dropped_or_said_twice_are_found() -> None:
    good = small().lines
    assert found(good) == []
    assert found([*good[:2], *good[3:]])[0].startswith("2: ")
    assert found([*good[:3], good[2], *good[3:]])[0].startswith("3: ")
    assert found([good[0], good[2], good[1], *good[3:]])[0].startswith("1: ")
    assert found(good[1:])[0].startswith("0: ")
    assert found([]) == ["0: the ledger is empty; it begins with an open entry"]


def test_an_entry_that_another_key_signed_is_found() -> None:
    from tests.attesting import key_of

    chain = small()
    chain.entries[-1] = seal(chain.entries[-1], key_of("somebody else"))
    assert found(chain) == [
        f"{chain.entries[-1].sequence}: its signature is not by the key of the ledger's first entry"
    ]


def test_an_entry_that_its_own_site_wrote_anew_is_found() -> None:
    chain = small()
    chain.entries[3] = seal(replace(chain.entries[3], detail={"reservation": 2, "update": "ef" * 32}), KEY)
    assert found(chain) == ["4: it does not name the hash of entry 3 as the one before it"]


def test_time_that_runs_back_is_found() -> None:
    chain = small()
    last = chain.entries[-1]
    chain.add("infinite", charging.infinite_detail("x"), time=last.time - 1)
    assert ["before the time" in each for each in found(chain)] == [True]


def test_every_kind_of_entry_has_a_form_and_no_other_key() -> None:
    assert set(FORMS) == KINDS
    chain = Chain()
    chain.add("infinite", {"reason": "x", "epsilon": 0.0})
    assert found(chain) == ["1: a infinite entry and 'epsilon' do not go together"]


def test_the_table_says_what_happened() -> None:
    table = list(rows(small().entries))
    assert [row.kind for row in table] == ["open", "run", "task", "commit", "task", "commit", "task"]
    assert table[1].steps == 40
    assert (table[2].round, table[2].phase, table[2].steps, table[2].run) == (0, 0, 10, "r1")
    assert table[0].remaining == 8.0
    assert isclose(table[-1].epsilon + table[-1].remaining, 8.0)


def test_damage_is_found_in_order() -> None:
    lines = small().lines
    lines[3] = lines[3].replace(b"commit", b"Commit")
    entries, damage = first_damage(lines)
    assert len(entries) == 3
    assert damage is not None
    assert damage.entry == 3
    assert lines_of(b"\n".join(lines) + b"\n") == lines
    assert sum(entry is None for entry, _ in walk(lines)) == 1
