"""What a hospital is told when it registers a population, and that a run asks only whether that was done."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import structlog
import yaml
from PIL import Image

from deerfield.errors import InvalidInput, NotMapped
from services.client.__main__ import main
from services.client.custody import register
from services.client.custody.commitment import commitment, salt
from services.client.custody.custody import Custody
from services.client.custody.ledger_file import NAME, account_of, read
from services.client.custody.survey import survey
from services.client.policy import Policy, Population
from tests.unit.client.sites import FakeLink, assigned, policy, serve, spec

ROWS = [[f"p{number // 2}", f"note {number}", "xy"[number % 2]] for number in range(12)]
SALT = bytes(range(32))


@pytest.fixture(autouse=True)
def logged():
    with structlog.testing.capture_logs() as lines:
        yield lines


def write(path, rows, header=("patient", "text", "label")):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def population(path, **changes):
    terms = {"unit": "patient", "epsilon": 8.0, "units_low": 5, "units_high": 7, **changes}
    return Population.model_validate({"source": {"path": str(path), "patient": "patient"}, **terms})


def found(path, level, **changes):
    report = survey("p", population(path, **changes))
    return [finding.sentence for finding in report.findings if finding.level == level]


def entries(state, name="p"):
    return account_of(read(state / "ledgers" / name), state).hashes


def test_a_report_counts_what_is_there(tmp_path):
    rows = [*ROWS, ["p0", "again", "x"], ["p1", "", "x"]]
    report = survey("p", population(write(tmp_path / "notes.csv", rows), examples_high=2))
    assert (report.rows, report.usable_rows, report.units, report.rows_without_unit) == (14, 13, 6, 0)
    assert (report.examples_median, report.examples_max, report.units_above) == (2.0, 3, 1)
    assert report.labels == {"x": 7, "y": 6}
    assert report.bounds_respected
    assert report.error is None


@pytest.mark.parametrize(
    ("rows", "changes", "says"),
    [
        ([*ROWS, ["", "whose", "x"]], {}, "'patient' is empty in 1 of 13 rows, first in row 13"),
        (ROWS[:8], {}, "4 patients with a usable row are fewer than units_low 5"),
        ([*ROWS, ["p6", "a", "x"], ["p7", "b", "x"]], {}, "8 patients with a usable row are more than units_high 7"),
        (ROWS, {"unit": "record"}, "12 examples with a usable row are more than units_high 7"),
        ([*ROWS[:8], ["p4", "", "x"]], {}, "4 patients"),  # a patient without a usable row is absent
    ],
)
def test_what_must_be_mended_first_is_an_error(tmp_path, rows, changes, says):
    (sentence,) = found(write(tmp_path / "notes.csv", rows), "error", **changes)
    assert says in sentence
    assert sentence.startswith("population 'p': ")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([*ROWS, *([["p0", "more", "x"]] * 3)], "1 patients have more than examples_high 2 examples, one has 5"),
        ([*ROWS, ["p0", "", "x"]], "1 of 13 rows cannot be used"),
        ([*ROWS, ["p0", "text", "x", "a fourth column"]], "lines of the file are left out"),
        (ROWS, "6 patients are fewer than 1000"),
    ],
)
def test_what_a_site_copes_with_is_a_warning(tmp_path, rows, says):
    path = write(tmp_path / "notes.csv", rows)
    assert any(says in sentence for sentence in found(path, "warning", examples_high=2))
    assert found(path, "error", examples_high=2) == []


@pytest.mark.parametrize("column", ["text", "label", "patient"])
def test_a_column_that_is_missing_is_named_with_those_that_are_there(tmp_path, column):
    header = ["other" if name == column else name for name in ("patient", "text", "label")]
    (sentence,) = found(write(tmp_path / "notes.csv", ROWS, header), "error")
    assert f"has no column {column!r}; its columns are {', '.join(header)}" in sentence
    assert "`source: " in sentence


def test_a_population_of_patients_must_say_who_they_are(tmp_path):
    path = write(tmp_path / "notes.csv", ROWS)
    (sentence,) = found(path, "error", source={"path": str(path)})
    assert "needs the column that names each example's patient" in sentence


def test_pictures_are_looked_at(tmp_path):
    for number in range(3):
        folder = tmp_path / "scans" / "xy"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / f"{number}.png")
    (tmp_path / "scans/x/0.png").write_bytes(b"not a picture")
    changes = {"unit": "record", "source": {"path": str(tmp_path / "scans"), "input": "image"}}
    report = survey("p", population(tmp_path, **changes))
    assert (report.rows, report.usable_rows, report.labels) == (3, 2, {"x": 1, "y": 1})


def committed(path, secret=SALT, **changes):
    return commitment(population(path, **changes).source, secret)


def test_a_commitment_depends_on_the_bytes_the_mapping_and_the_salt_and_not_on_the_place(tmp_path):
    one, same = write(tmp_path / "one.csv", ROWS), write(tmp_path / "same.csv", ROWS)
    assert committed(one) == committed(same)
    assert committed(one) != committed(one, SALT[::-1])
    relabelled = {"source": {"path": str(one), "patient": "patient", "label": "text"}}
    assert committed(one) != committed(one, **relabelled)
    changed = bytearray(one.read_bytes())
    changed[-3] ^= 1
    same.write_bytes(changed)
    assert committed(one) != committed(same)


def test_a_commitment_to_a_folder_covers_every_file_and_its_name(tmp_path):
    (tmp_path / "x/deep").mkdir(parents=True)
    (tmp_path / "x/a.png").write_bytes(b"a")
    (tmp_path / "x/deep/b.png").write_bytes(b"b")
    seen = [committed(tmp_path)]
    (tmp_path / "x/deep/b.png").write_bytes(b"c")
    seen.append(committed(tmp_path))
    (tmp_path / "x/deep/b.png").rename(tmp_path / "x/b.png")
    seen.append(committed(tmp_path))
    assert len(set(seen)) == 3


def test_the_rows_that_a_source_names_are_part_of_the_commitment(tmp_path):
    path, rows = write(tmp_path / "notes.csv", ROWS), tmp_path / "rows.npy"
    source = {"source": {"path": str(path), "patient": "patient", "rows": str(rows)}}
    np.save(rows, np.arange(4))
    before = committed(path, **source)
    np.save(rows, np.arange(5))
    assert committed(path, **source) != before


def test_the_salt_is_made_once_and_is_the_owners_alone(tmp_path):
    first = salt(tmp_path / "state")
    assert len(first) == 32
    assert salt(tmp_path / "state") == first != salt(tmp_path / "other")
    assert (tmp_path / "state/commitment.salt").stat().st_mode & 0o077 == 0


@pytest.fixture
def hospital(tmp_path):
    """(policy, its file, state, data) of a hospital that has not registered anything."""
    path = write(tmp_path / "notes.csv", ROWS)
    asked = {"unit": "record", "units_low": 10, "units_high": 20, "registration": "required"}
    rules = policy(population={"source": {"path": str(path), "patient": "patient"}, **asked})
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump(rules.model_dump(mode="json")))
    return rules, file, tmp_path / "state", path


def registered(file, state, *more):
    return main(["register", "--policy", str(file), "--site", "north", "--state", str(state), *more])


def test_a_population_that_was_never_registered_trains_nothing_and_begins_no_ledger(hospital):
    rules, _, state, _ = hospital
    link = FakeLink([assigned(), assigned(1)])
    assert serve(link, state, rules=rules) == []
    assert [reason for reason, _ in link.declined] == ["NOT_MAPPED", "NOT_MAPPED"]
    with Custody("north", rules, state) as custody, pytest.raises(NotMapped, match="is not registered; run `deerfield"):
        custody.account("r", 0, spec())
    assert not (state / "ledgers").exists()


def test_a_registered_population_trains_until_its_data_change_and_again_once_they_are_registered(hospital):
    rules, file, state, path = hospital
    assert registered(file, state) == 0
    first = FakeLink([assigned()])
    assert "trainer" in serve(first, state, rules=rules)
    write(path, [*ROWS[:-1], ["p5", "mended", "y"]])
    link = FakeLink([assigned(1)])
    assert serve(link, state, rules=rules) == []
    assert [reason for reason, _ in link.declined] == ["NOT_MAPPED"]
    with Custody("north", rules, state) as custody, pytest.raises(NotMapped, match="other data than were registered"):
        custody.account("r", 0, spec())
    assert registered(file, state) == 0
    again = FakeLink([assigned(run="next")])
    assert "trainer" in serve(again, state, rules=rules)
    (before,), (after,) = first.sent, again.sent
    assert after.attestation.epsilon_before == before.attestation.epsilon_after > 0  # the same patients, one budget


def test_a_run_hears_nothing_of_what_is_in_registered_data(hospital):
    """They are outside every bound that a person would be told of, and the site answers as it always does."""
    rules, _, state, path = hospital
    write(path, [["", "", "x"], ["p1", "a", ""]])
    register.record("north", rules, "p", state)
    link = FakeLink([assigned()])
    assert "trainer" in serve(link, state, rules=rules)
    assert link.declined == []


def test_registering_unchanged_data_again_writes_nothing(hospital):
    rules, _, state, path = hospital
    heads = [register.record("north", rules, "p", state) for _ in range(2)]
    assert heads[0] == heads[1]
    path.rename(path.with_name("exported-again.csv"))
    moved = rules.model_dump(mode="json")
    moved["populations"]["p"]["source"]["path"] = str(path.with_name("exported-again.csv"))
    assert register.record("north", Policy.model_validate(moved), "p", state) == heads[0]
    assert len(entries(state)) == 1


def test_what_must_be_mended_leaves_the_ledger_as_it_was(hospital, capsys):
    _, file, state, path = hospital
    assert registered(file, state) == 0
    before = (state / "ledgers/p" / NAME).read_bytes()
    write(path, ROWS[:3])
    capsys.readouterr()
    assert registered(file, state) == 2
    said = capsys.readouterr()
    assert "error: population 'p': 3 examples with a usable row are fewer than units_low 10" in said.err
    assert json.loads(said.out)[0]["units"] == 3  # the hospital is told all the same
    assert (state / "ledgers/p" / NAME).read_bytes() == before


def test_one_population_that_must_be_mended_holds_up_all_that_are_asked_for(hospital, tmp_path):
    rules, file, state, _ = hospital
    two = rules.model_dump(mode="json")
    other = {"path": str(write(tmp_path / "other.csv", ROWS[:10])), "patient": "patient"}
    two["populations"]["q"] = {**two["populations"]["p"], "source": other, "units_low": 15, "units_high": 20}
    file.write_text(yaml.safe_dump(two))
    assert registered(file, state) == 2
    assert not (state / "ledgers").exists()
    assert registered(file, state, "--population", "p") == 0
    assert [each.name for each in (state / "ledgers").iterdir()] == ["p"]
    assert registered(file, state, "--population", "none of it") == 2


def test_the_same_data_are_registered_under_one_name_only(hospital, tmp_path, capsys):
    rules, file, state, _ = hospital
    two = rules.model_dump(mode="json")
    source = two["populations"]["p"]["source"]
    (tmp_path / "copy.csv").write_bytes(Path(source["path"]).read_bytes())
    for path, code in ((source["path"], 2), (str(tmp_path / "copy.csv"), 2)):
        two["populations"]["q"] = {**two["populations"]["p"], "source": {**source, "path": path}}
        file.write_text(yaml.safe_dump(two))
        registered(file, state, "--population", "p")
        assert registered(file, state, "--population", "q") == code
        assert "would have two budgets" in capsys.readouterr().err
    assert [each.name for each in (state / "ledgers").iterdir()] == ["p"]


def test_the_salt_is_never_said(hospital, capsys, logged):
    rules, file, state, _ = hospital
    assert registered(file, state) == 0
    with Custody("north", rules, state) as custody:
        custody.account("r", 0, spec())
    told, secret = capsys.readouterr(), salt(state)
    written = (state / "ledgers/p" / NAME).read_bytes()
    for said in (told.out.encode(), told.err.encode(), str(logged).encode(), written):
        assert secret.hex().encode() not in said
        assert secret not in said


def test_a_ledger_is_not_registered_under_another_sites_name(hospital):
    rules, _, state, _ = hospital
    register.record("north", rules, "p", state)
    with pytest.raises(InvalidInput, match="is that of site 'north', not of 'south'"):
        register.record("south", rules, "p", state)
    assert len(entries(state)) == 1


def test_who_lost_the_salt_registers_again_and_keeps_the_budget(hospital):
    rules, _, state, _ = hospital
    register.record("north", rules, "p", state)
    (state / "commitment.salt").unlink()
    with Custody("north", rules, state) as custody, pytest.raises(NotMapped, match="other data"):
        custody.account("r", 0, spec())
    register.record("north", rules, "p", state)
    with Custody("north", rules, state) as custody:
        custody.account("r", 0, spec())
    assert len(entries(state)) == 2


def on_start(path, **changes):
    source = {"path": str(path), "patient": "patient"}
    return policy(population={"source": source, "registration": "on_start", **changes})


def test_on_start_any_counts_are_registered_and_told_to_the_log_alone(tmp_path, logged):
    rules = on_start(write(tmp_path / "notes.csv", ROWS[:3]))
    link = FakeLink([assigned()])
    assert "trainer" in serve(link, tmp_path / "state", rules=rules)
    assert link.declined == []
    told = [line["finding"] for line in logged if line["event"] == "registration"]
    assert any("3 examples with a usable row are fewer than units_low 100" in finding for finding in told)
    assert account_of(read(tmp_path / "state/ledgers/p"), tmp_path).terms.commitment is not None


def test_on_start_a_missing_column_stops_the_site_before_anything_is_charged(tmp_path):
    rules = on_start(write(tmp_path / "notes.csv", ROWS, ("patient", "text", "diagnosis")))
    link = FakeLink([assigned()])
    with pytest.raises(InvalidInput, match="has no column 'label'"):
        serve(link, tmp_path / "state", rules=rules)
    assert [reason for reason, _ in link.declined] == ["NOT_MAPPED"]
    assert (tmp_path / "state/ledgers/p" / NAME).read_bytes() == b""


def test_there_is_no_way_to_name_data_that_no_population_is_bound_to(hospital):
    """A run has a population's name and nothing else, and one that the policy lacks is declined."""
    rules, file, state, path = hospital
    assert registered(file, state) == 0
    assert not {"source", "path", "data"} & set(type(spec()).model_fields)
    link = FakeLink([assigned(population=path.stem)])
    assert serve(link, state, rules=rules) == []
    assert [reason for reason, _ in link.declined] == ["NOT_MAPPED"]
