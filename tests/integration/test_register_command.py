"""`deerfield register`, as a hospital types it."""

import json

import pytest
import yaml

from tests.integration.federation import deerfield

DATA = "patient,text,label\n" + "".join(f"p{number // 2},note {number},{'xy'[number % 2]}\n" for number in range(30))


@pytest.fixture
def hospital(tmp_path):
    """(policy file, state folder, data file)."""
    data, file = tmp_path / "notes.csv", tmp_path / "policy.yaml"
    data.write_text(DATA)
    terms = {"unit": "patient", "epsilon": 8, "units_low": 10, "units_high": 100}
    population = {"source": {"path": str(data), "patient": "patient"}, **terms}
    file.write_text(yaml.safe_dump({"populations": {"notes": population}, "models": {}}))
    return file, tmp_path / "state", data


def test_a_hospital_is_told_what_is_there_and_its_ledger_notes_which_data_that_were(hospital):
    file, state, data = hospital
    done = deerfield("register", file, "--site", "north", "--state", state)
    assert (done.returncode, done.stderr) == (0, "")
    assert "for this hospital only" in done.stdout
    assert "15, within the declared 10 to 100" in done.stdout
    assert "registered at north: notes" in done.stdout
    (entry,) = (state / "ledgers/notes/ledger.jsonl").read_text().splitlines()
    assert len(json.loads(entry)["detail"]["commitment"]) == 64

    data.write_text(DATA.replace("p3,", ","))
    done = deerfield("register", file, "--site", "north", "--state", state, "--population", "notes", "--json")
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: population 'notes': column 'patient' is empty in 2 of 30 rows, first in row 7"
    )
    assert len(done.stderr.splitlines()) == 1
    told = json.loads(done.stdout)
    assert (told["registered"], told["populations"][0]["rows_without_unit"]) == (False, 2)
    assert (state / "ledgers/notes/ledger.jsonl").read_text() == entry + "\n"
