"""`deerfield audit` as a person runs it: quiet about the quickstart as it is, loud about the same without its noise."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.integration.federation import command, environment, write

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "examples/quickstart.yaml"


def deerfield(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(*arguments), env=environment(), capture_output=True, text=True, timeout=900, check=False
    )


def test_the_quickstart_gives_away_no_more_than_it_claims():
    done = deerfield("audit", QUICKSTART, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(found)
    assert found["bound"] <= found["claimed"] < found["ceiling"]
    assert not found["violation"]
    assert (found["steps"], found["unit"], found["noise"]) == (16, "patient", "on")


def test_the_quickstart_without_noise_is_a_violation():
    done = deerfield("audit", QUICKSTART, "--noise-off")
    assert done.returncode == 1, done.stderr
    print(done.stdout)
    assert "VIOLATION" in done.stdout
    assert "no ledger was touched" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [((), "unit 'none'"), (("--site", "south"), "east, north, west")],
)
def test_what_cannot_be_audited_is_one_sentence(tmp_path, arguments, advice):
    done = deerfield("audit", write(tmp_path), *arguments)
    assert done.returncode == 2
    assert advice in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
