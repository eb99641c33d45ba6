"""What is signed is exactly what is said: nothing of it can be changed, mixed up or taken for something else."""

from dataclasses import fields, replace
from math import inf

import pytest

from deerfield.attestation import (
    check_receipt,
    countersign,
    head_statement,
    public_key,
    sign,
    statement,
    verify,
    verify_head,
)
from deerfield.errors import BadAttestation
from deerfield.types import Attestation, Countersigned, Spend
from tests.attesting import key_of

SPEND = Spend(unit="record", noise_multiplier=1.5, sample_rate=0.125, steps=8, clip=1.0)
COUNTS = Spend(unit="record", noise_multiplier=4.0, sample_rate=1, steps=3, clip=1.0)
UNSIGNED = Attestation(
    site="north",
    population="patients",
    run="run-1",
    incarnation=1,
    round=2,
    phase=1,
    update="ab" * 32,
    spend=SPEND,
    beside=(COUNTS,),
    accountant="dp-accounting PLD",
    epsilon_before=0.5,
    epsilon_after=1.0,
    delta_after=1e-6,
    ledger_sequence=7,
    ledger_head="cd" * 32,
    data_commitment="0e" * 32,
)
SIGNED = sign(key_of("north"), UNSIGNED)
HEAD = countersign(key_of("the aggregator"), SIGNED)


def test_the_statement_is_these_very_bytes():
    assert statement(replace(UNSIGNED, public_key="ef" * 32, epsilon_after=inf)) == (
        b'deerfield attestation v1\n{"accountant":"dp-accounting PLD","beside":[{"clip":1.0,"noise_multiplier":4.0,'
        b'"sample_rate":1.0,"steps":3,"unit":"record"}],"data_commitment":"'
        + b"0e"
        * 32
        + b'","delta_after":1e-06,"epsilon_after":"infinity",'
        b'"epsilon_before":0.5,"incarnation":1,"ledger_head":"' + b"cd" * 32 + b'",'
        b'"ledger_sequence":7,"phase":1,"population":"patients",'
        b'"public_key":"' + b"ef" * 32 + b'","round":2,"run":"run-1","site":"north","spend":{"clip":1.0,'
        b'"noise_multiplier":1.5,"sample_rate":0.125,"steps":8,"unit":"record"},"update":"' + b"ab" * 32 + b'"}'
    )
    assert head_statement(HEAD) == (
        b'deerfield countersigned head v1\n{"aggregator_key":"'
        + HEAD.aggregator_key.encode()
        + b'","delta_after":1e-06,"epsilon_after":1.0,'
        b'"head":"' + b"cd" * 32 + b'","population":"patients","sequence":7,"site":"north"}'
    )


def test_without_a_data_commitment_the_bytes_are_those_from_before_there_was_one():
    older = replace(UNSIGNED, data_commitment="")
    assert statement(older) == statement(UNSIGNED).replace(b'"data_commitment":"' + b"0e" * 32 + b'",', b"")
    verify(sign(key_of("north"), older))
    with pytest.raises(BadAttestation):
        verify(replace(SIGNED, data_commitment=""))


def test_a_number_has_one_text_whether_it_was_whole_or_not():
    whole = replace(UNSIGNED, epsilon_before=0, epsilon_after=1, spend=replace(SPEND, clip=1))
    floats = replace(UNSIGNED, epsilon_before=0.0, epsilon_after=1.0, spend=replace(SPEND, clip=1.0))
    assert statement(whole) == statement(floats)


def test_what_was_signed_verifies_and_signing_it_again_is_the_same():
    verify(SIGNED)
    verify_head(HEAD, "patients")
    assert sign(key_of("north"), SIGNED) == SIGNED
    assert SIGNED.public_key == public_key(key_of("north"))
    assert countersign(key_of("the aggregator"), SIGNED) == HEAD


def another(value):
    """A value of the same type that is not the same."""
    if isinstance(value, tuple):
        return (another(value[0]), *value[1:])
    if isinstance(value, Spend):
        return replace(value, steps=value.steps + 1)
    if isinstance(value, str):
        return value[:-1] + ("0" if value[-1] != "0" else "1")
    return value + 1


@pytest.mark.parametrize("name", [each.name for each in fields(Attestation)])
def test_no_part_of_an_attestation_can_be_changed(name):
    with pytest.raises(BadAttestation, match="not signed by the key"):
        verify(replace(SIGNED, **{name: another(getattr(SIGNED, name))}))


@pytest.mark.parametrize("name", [each.name for each in fields(Spend) if each.name != "unit"])
def test_no_part_of_a_spend_can_be_changed(name):
    with pytest.raises(BadAttestation):
        verify(replace(SIGNED, spend=replace(SPEND, **{name: another(getattr(SPEND, name))})))


@pytest.mark.parametrize("name", [each.name for each in fields(Countersigned)])
def test_no_part_of_a_countersigned_head_can_be_changed(name):
    changed = replace(HEAD, **{name: another(getattr(HEAD, name))})
    with pytest.raises(BadAttestation):
        verify_head(changed, "patients")
    with pytest.raises(BadAttestation):
        check_receipt(SIGNED, changed)


@pytest.mark.parametrize("broken", ["", "0", "not hex", "00" * 5, "00" * 32, "00" * 64])
def test_a_key_or_signature_that_is_none_is_refused(broken):
    for name in ("public_key", "signature"):
        with pytest.raises(BadAttestation):
            verify(replace(SIGNED, **{name: broken}))


def test_one_statement_never_passes_for_the_other():
    key = key_of("north")
    as_head = replace(HEAD, aggregator_key=public_key(key))
    with pytest.raises(BadAttestation):
        verify_head(replace(as_head, signature=SIGNED.signature), "patients")
    assert not statement(SIGNED).startswith(head_statement(HEAD)[:20])


def test_a_receipt_is_for_the_head_that_was_attested_and_no_other():
    assert check_receipt(SIGNED, HEAD) == HEAD
    with pytest.raises(BadAttestation, match="without countersigning"):
        check_receipt(SIGNED, None)
    later = countersign(key_of("the aggregator"), replace(SIGNED, ledger_sequence=8))
    with pytest.raises(BadAttestation, match="countersigned entry 8"):
        check_receipt(SIGNED, later)
    with pytest.raises(BadAttestation, match="answered for patients, not others"):
        verify_head(HEAD, "others")
