"""What a step reads of a unit is that unit's business alone, and every unit lies whole in one lot."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deerfield.runfile import Source
from services.client.sources import data
from services.client.training.units import Patients, Records, units

OWNERS = st.lists(st.integers(0, 6), max_size=40).map(lambda names: np.unique(names, return_inverse=True)[1])


def everyone(found, step=0):
    return list(found.lots(torch.arange(len(found)), step))


def examples(lots):
    return [int(i) for lot in lots for part, _ in lot for i in part]


@given(OWNERS, st.integers(1, 8), st.integers(0, 50), st.integers(0, 6))
def test_removing_one_patient_changes_nothing_that_is_read_of_the_others(owners, at_most, step, gone):
    kept = np.flatnonzero(owners != gone)
    before = Patients(owners, at_most=at_most, microbatch=8)
    after = Patients(np.unique(owners[kept], return_inverse=True)[1], at_most=at_most, microbatch=8)
    others = [unit for unit in range(len(before)) if unit != gone]
    assert len(after) == len(others)
    for now, was in enumerate(others):
        assert np.array_equal(kept[after.window(now, step)], before.window(was, step))


@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 50))
def test_a_patient_with_more_examples_than_the_cap_brings_them_all_in_turn(count, at_most, step):
    patient = Patients(np.zeros(count, np.int64), at_most=at_most, microbatch=8)
    turns = [patient.window(0, step + i) for i in range(-(-count // at_most))]
    assert {len(set(turn)) for turn in turns} == {len(turns[0])} == {min(count, at_most)}
    assert set(np.concatenate(turns)) == set(range(count))


@given(OWNERS, st.integers(1, 8))
def test_lots_hold_whole_patients_and_microbatches_no_more_than_they_may(owners, microbatch):
    patients = Patients(owners, at_most=None, microbatch=microbatch)
    lots = everyone(patients)
    assert sorted(examples(lots)) == list(range(len(owners)))
    for lot in lots:
        sizes = lot[0][1].sizes
        assert len(lot) == 1 or len(sizes) == 1  # several microbatches only for one that is too large
        assert all(len(part) <= microbatch for part, _ in lot)
        places = torch.cat([whose.places for _, whose in lot])
        assert torch.equal(torch.bincount(places, minlength=len(sizes)), sizes)
        for place in range(len(sizes)):
            assert len({int(owners[i]) for i, at in zip(examples([lot]), places, strict=True) if at == place}) == 1
    assert sum(len(lot[0][1].sizes) for lot in lots) == len(patients)


def test_a_record_is_a_unit_whoever_it_belongs_to():
    records = units("record", np.zeros(7, np.int64), at_most=None, microbatch=3)
    assert isinstance(records, Records)
    assert [len(lot[0][0]) for lot in everyone(records)] == [3, 3, 1]
    assert all(whose is None for lot in everyone(records) for _, whose in lot)


@pytest.mark.parametrize("unit", ["record", "patient"])
def test_no_unit_is_drawn_of_none(unit):
    nobody = units(unit, np.zeros(0, np.int64), at_most=4, microbatch=3)
    assert len(nobody) == 0
    assert everyone(nobody) == []


def test_an_example_that_cannot_be_used_is_dropped_and_a_patient_without_any_is_absent(tmp_path):
    rows = ["text,label,patient", "cough,rash,p", ",rash,p", "fever,plague,q", "pain,fever,", "pain,fever,r"]
    (tmp_path / "notes.csv").write_text("\n".join(rows) + "\n")
    source = Source(path=str(tmp_path / "notes.csv"), patient="patient")
    table = data.read(source, ("normal", "fever", "rash"), "text", invalid="drop")
    owners = np.unique(table.examples.units, return_inverse=True)[1]
    assert table.examples.units.tolist() == ["p", "r"]
    assert examples(everyone(Patients(owners, at_most=4, microbatch=8))) == [0, 1]
