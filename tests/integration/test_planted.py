"""A whole federation over data with planted names: whatever leaves a site, and every log, is searched for them."""

import csv
import json
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError

import pytest
import yaml

from tests.integration import federation
from tests.integration.federation import assert_none_left, command, deerfield, environment
from tests.scraped import fetched

PATIENT, ID, LABEL = "quistgaard", "mrn-77142-zebu", "amyloidosis-zeta"  # of records: nobody's log may hold them
FOLDER, COLUMN, UNIT = "ward-of-dr-ostrander", "wortlaut_der_notiz", "fallnummer_intern"  # of the hospital
RECORDS, PLACES = (PATIENT, ID, LABEL), (FOLDER, COLUMN, UNIT)
OF_NO_RUN = {"settings", "signs heads of ledgers", "a caller left before its answer"}  # lines of the aggregator
AT_SITES = ("run.json", "prepared.json", "sites", "prepare.log", "preload.log", "east.log", "north.log", "west.log")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as line:
        return int(line.getsockname()[1])


def plant(folder: Path, label: str = "") -> Path:
    """A federation's files, with a name in each text, patients' ids, a folder and columns; `label` for one record."""
    path = federation.write(folder, rounds=2)
    run, secret = yaml.safe_load(path.read_text()), folder / FOLDER
    secret.mkdir()
    with (folder / "notes.csv").open() as plain, (secret / "notes.csv").open("w", newline="") as planted:
        rows = csv.DictReader(plain)
        names = {"hospital": "hospital", "patient": UNIT, "label": "label", "text": COLUMN}
        out = csv.DictWriter(planted, list(names.values()))
        out.writeheader()
        for number, row in enumerate(rows):
            found = {names[name]: value for name, value in row.items()}
            found[COLUMN] += f" {PATIENT}"
            found[UNIT] = f"{ID}-{number}"
            if label and number == 7:
                found["label"] = label
            out.writerow(found)
    source = {"path": f"{FOLDER}/notes.csv", "patient": UNIT, "site": "hospital", "input": COLUMN}
    run["embedded"]["source"] = source
    path.write_text(yaml.safe_dump(run))
    return path


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The folder of a whole run, and the metrics that were fetched while it went on."""
    folder, out = tmp_path_factory.mktemp("hospitals"), tmp_path_factory.mktemp("out") / "run"
    port = free_port()
    here = environment() | {"DEERFIELD_METRICS": f"127.0.0.1:{port}"}
    said = folder.parent / "said.txt"
    with said.open("w") as stream:
        run = subprocess.Popen(command("run", plant(folder), "--out", out), env=here, stdout=stream, stderr=stream)
        metrics = ""
        try:
            while run.poll() is None:
                with suppress(URLError, OSError):
                    found = fetched(f"127.0.0.1:{port}")
                    metrics = found if "deerfield_sites{" in found else metrics
                with suppress(subprocess.TimeoutExpired):
                    run.wait(0.3)
            assert run.returncode == 0, said.read_text()
        finally:
            run.kill()
            run.wait()
    assert_none_left(here)
    return out, metrics


def holding(folder: Path, words: tuple[str, ...], passed: tuple[str, ...] = ()) -> list[str]:
    """The files below a folder that hold one of the words, but for those below or called what is `passed`."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    public = [path for path in files if not set(path.relative_to(folder).parts) & set(passed)]
    return [f"{path}: {word}" for path in public for word in words if word.encode() in path.read_bytes().lower()]


def lines(log: Path) -> list[dict[str, object]]:
    said = log.read_text().splitlines()
    assert [line for line in said if not line.startswith("{")] == []
    return [json.loads(line) for line in said]


def test_nothing_that_a_run_leaves_behind_names_a_record(told):
    out, _ = told
    assert holding(out, RECORDS) == []


def test_nothing_outside_the_sites_names_their_folders_and_columns(told):
    out, metrics = told
    assert holding(out, PLACES, AT_SITES) == []
    assert holding(out, (FOLDER,)) != []  # at the sites it does stand, or this test would look in the wrong place
    assert "deerfield_sites{" in metrics
    assert [word for word in (*RECORDS, *PLACES) if word in metrics.lower()] == []


def test_every_line_of_every_log_is_json_and_says_where_it_comes_from(told):
    out, _ = told
    run = json.loads((out / "result.json").read_text())["run"]
    for site in federation.SITES:
        said = lines(out / "logs" / f"{site}.log")
        assert {(line["site"], line["run"], line["service"]) for line in said} == {(site, run, "client")}
    scored = [line for line in lines(out / "logs" / "evaluator.log") if line["event"] == "evaluated"]
    assert len(scored) == 4
    assert {line["run"] for line in scored} == {run}
    central = lines(out / "logs" / "aggregator.log")
    assert {line["service"] for line in central} == {"aggregator"}
    about = [line for line in central if line["event"] not in OF_NO_RUN or run in str(line)]
    assert [line for line in about if line.get("run") != run] == []
    called = [line for line in about if "call" in line or line["event"] == "refused"]
    assert [line for line in called if not line.get("call") or line.get("site") not in federation.SITES] == []
    published = [line for line in central if line["event"] == "phase published"]
    where = [(line["run"], line["round"], line["phase"]) for line in published]
    assert where == [(run, round_, phase) for round_ in (0, 1) for phase in (0, 1)]


@pytest.mark.e2e
def test_a_label_that_no_run_knows_is_shown_to_who_must_mend_it_and_goes_nowhere_else(tmp_path):
    out = tmp_path / "out"
    done = deerfield("run", plant(tmp_path / "hospitals", LABEL), "--out", out)
    assert done.returncode == 2
    assert LABEL in (out / "logs" / "prepare.log").read_text()
    assert holding(out, RECORDS, AT_SITES) == []
