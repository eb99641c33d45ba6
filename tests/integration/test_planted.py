"""A whole federation over data with planted names: whatever leaves a site, and every log, is searched for them."""

import csv
import json
import os
import subprocess
from contextlib import closing, suppress
from pathlib import Path
from urllib.error import URLError

import pytest
import yaml

from tests.integration import federation
from tests.integration.federation import assert_none_left, command, environment, wait_for
from tests.scraped import fetched

PATIENT, ID, LABEL = "quistgaard", "mrn-77142-zebu", "amyloidosis-zeta"  # of records: nobody's log may hold them
FOLDER, COLUMN, UNIT = "ward-of-dr-ostrander", "wortlaut_der_notiz", "fallnummer_intern"  # of the hospital
RECORDS, PLACES = (PATIENT, ID, LABEL), (FOLDER, COLUMN, UNIT)
METRICS_PORT_FILE = "aggregator.log"


def plant(folder: Path) -> Path:
    """A federation's files, with a name in a text, a patient's id, a label that no run knows, a folder and columns."""
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
            if number % 40 == 7:
                found["label"] = LABEL
            out.writerow(found)
    source = {"path": f"{FOLDER}/notes.csv", "patient": UNIT, "site": "hospital", "text": COLUMN, "invalid": "drop"}
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
