"""The chain of the audit log: whatever is done to it afterwards is found, and named by its entry."""

from dataclasses import replace
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from deerfield.attestation import public_key
from deerfield.ledger.entry import GENESIS, Head
from services.aggregator.auditing.audit_chain import (
    START,
    Draft,
    Walk,
    chained,
    content_hash,
    is_signed,
    parse_head,
    signed,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
LENGTH = 9


def log(length=LENGTH):
    """A chain whose every third entry signs the head before it."""
    found, head = [], START
    for number in range(1, length + 1):
        if number % 3 == 0:
            draft = Draft(kind="head", what="signed", actor={"role": "aggregator"}, detail=signed(KEY, head))
        else:
            actor = {"role": "site", "name": "north", "serial": "0a"}
            draft = Draft(kind="edge", what="task_taken", actor=actor, run="r", detail={"round": number})
        found.append(chained(head, draft, 1000.0 + number))
        head = found[-1].head
    return found


def wrong(entries, **options):
    walk = Walk(**options)
    return list(walk.findings(entries))


places = st.integers(0, LENGTH - 1)
changes = st.one_of(
    st.tuples(st.just("sequence"), st.integers(-5, 100)),
    st.tuples(st.just("time"), st.floats(0, 1e10)),
    st.tuples(st.sampled_from(["kind", "what", "actor", "run", "detail"]), st.text(max_size=8)),
    st.tuples(st.sampled_from(["previous", "hash"]), st.text("0123456789abcdef", min_size=64, max_size=64)),
)


def test_a_log_that_nobody_touched_is_sound_and_ends_at_its_head():
    walk = Walk(key=public_key(KEY), kept=log()[3].head)
    assert list(walk.findings(log())) == []
    assert walk.head == log()[-1].head
    assert wrong([]) == []


def test_the_first_entry_has_none_before_it_and_each_other_one_names_its_own():
    entries = log()
    assert (entries[0].sequence, entries[0].previous) == (1, GENESIS)
    assert all(after.previous == before.hash for before, after in pairwise(entries))


@given(places, changes)
def test_a_changed_field_is_found_at_its_entry(place, change):
    entries = log()
    before = entries[place]
    entries[place] = replace(before, **dict([change]))
    findings = wrong(entries)
    assert bool(findings) is (entries[place] != before)
    if findings:
        assert findings[0].entry in (entries[place].sequence, before.sequence)


@given(places, changes)
def test_a_changed_entry_whose_hash_was_made_anew_is_found_at_the_one_after_or_by_a_kept_head(place, change):
    entries = log()
    before = entries[place]
    altered = replace(before, **dict([change]))
    entries[place] = replace(altered, hash=content_hash(altered))
    assert bool(wrong(entries, kept=log()[-1].head)) is (entries[place] != before)


@given(places)
def test_a_removed_entry_is_found_and_the_last_one_by_a_kept_head(place):
    entries = log()
    del entries[place]
    findings = wrong(entries, kept=log()[-1].head)
    if place == LENGTH - 1:
        assert wrong(entries) == []  # a log that was cut off is sound in itself
        assert "entries at its end are missing" in findings[0].what
    else:
        assert f"entry {place + 1} is missing before it" in findings[0].what


@given(places, places)
def test_entries_that_changed_places_are_found(one, other):
    entries = log()
    entries[one], entries[other] = entries[other], entries[one]
    assert bool(wrong(entries)) is (one != other)


@given(places, places)
def test_an_entry_that_was_put_in_is_found_whatever_number_it_has(place, number):
    entries = log()
    forged = chained(
        Head(sequence=number, hash=entries[number].previous),
        Draft(kind="edge", what="run_aborted", actor={"role": "operator"}, detail={}),
        5.0,
    )
    entries.insert(place, forged)
    assert wrong(entries)


def test_a_fork_is_named():
    entries = log()
    entries.insert(4, chained(entries[2].head, Draft(kind="edge", what="x", actor={}, detail={}), 5.0))
    assert next(finding.what for finding in wrong(entries)).startswith("it comes after entry 4: the log forks")


def test_a_log_that_was_written_anew_from_some_entry_on_does_not_pass_a_kept_head_or_the_aggregators_key():
    entries = log()[:4]
    for number in range(5, 10):
        forged = signed(OTHER, entries[-1].head)
        kind = "head" if number % 3 == 0 else "edge"
        entries.append(chained(entries[-1].head, Draft(kind=kind, what="x", actor={}, detail=forged), 1.0))
    assert wrong(entries) == []
    assert "the log was rewritten" in wrong(entries, kept=log()[6].head)[0].what
    assert "is signed by key" in wrong(entries, key=public_key(KEY))[0].what


def test_a_head_signs_the_entry_before_it_and_nothing_else():
    entries = log(2)
    for statement in (
        signed(KEY, entries[0].head),
        {**signed(KEY, entries[1].head), "signature": "0" * 128},
        {**signed(KEY, entries[1].head), "key": public_key(OTHER)},
        {},
    ):
        bad = chained(entries[-1].head, Draft(kind="head", what="signed", actor={}, detail=statement), 5.0)
        assert len(wrong([*entries, bad])) == 1, statement


def test_a_kept_head_is_read_as_it_was_printed():
    head = log()[-1].head
    statement = signed(KEY, head)
    assert is_signed(statement)
    assert parse_head(f"{head.sequence}:{head.hash}\n") == {"sequence": head.sequence, "hash": head.hash}
    no_number = '{"sequence": "1", "hash": "' + head.hash + '"}'
    for text in ("", "9", "9:xyz", "x:" + "0" * 64, '{"sequence": 1}', no_number):
        with pytest.raises(ValueError, match="a head is SEQUENCE:HASH"):
            parse_head(text)
