"""`deerfield ledger show`: as JSON, as a table, as a drawing of what is left."""

import json
from dataclasses import asdict, replace
from math import inf

import pytest
from typer.testing import CliRunner

from deerfield import keyfile
from deerfield.ledger.account import fold
from deerfield.ledger.entry import plain
from deerfield.ledger.statement import rows
from pipelines import cli
from services.client.custody.ledger_file import Ledger
from tests.command import deerfield
from tests.ledger_command import chain, ledger_of, state
from tests.ledgers import TERMS


def test_show_as_json_says_what_the_ledger_says(tmp_path):
    state(tmp_path, runs=("r1", "r2"))
    code, said = deerfield("ledger", "show", tmp_path, "--json")
    told, account = json.loads(said), fold(chain(tmp_path))
    assert code == 0
    assert told["entries"] == plain([asdict(row) for row in rows(chain(tmp_path))])
    assert (told["epsilon_spent"], told["epsilon_left"]) == (account.epsilon, account.remaining)
    assert (told["site"], told["population"], told["unit"], told["runs"]) == ("alpha", "lungs", "patient", 2)
    assert told["head"] == asdict(account.head)


def test_show_says_infinite_for_good(tmp_path):
    state(tmp_path)
    with Ledger.open(ledger_of(tmp_path).parent, keyfile.load(tmp_path / keyfile.SITE), TERMS) as ledger:
        ledger.make_infinite("metrics: clear")
    assert json.loads(deerfield("ledger", "show", tmp_path, "--json")[1])["epsilon_spent"] == "infinity"
    said = deerfield("ledger", "show", tmp_path)[1]
    assert "nothing: epsilon is infinite for good" in said
    assert "metrics: clear" in said


def test_show_fits_eighty_columns_and_keeps_to_the_last_entries(tmp_path):
    state(tmp_path, runs=("r1", "r2"))
    done = CliRunner().invoke(cli.app, ["ledger", "show", str(tmp_path), "--last", "3"], env={"COLUMNS": "80"})
    assert max(map(len, done.output.splitlines())) <= 80
    assert "the last 3 of 13 entries" in done.output


@pytest.mark.parametrize("name", ["plot.png", "plot.svg"])
@pytest.mark.parametrize("infinite", ["no", "from the start", "later"])
def test_a_burn_down_is_drawn(tmp_path, name, infinite):
    terms = replace(TERMS, unit="none", epsilon=inf) if infinite == "from the start" else TERMS
    state(tmp_path, terms, runs=() if infinite == "from the start" else ("r1",))
    if infinite == "later":
        with Ledger.open(ledger_of(tmp_path).parent, keyfile.load(tmp_path / keyfile.SITE), TERMS) as ledger:
            ledger.make_infinite("metrics: clear")
    code, _ = deerfield("ledger", "show", tmp_path, "--plot", tmp_path / name)
    assert code == 0
    assert (tmp_path / name).read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")


def test_the_burn_down_steps_down_to_what_is_left(tmp_path):
    from pipelines.ledger.burndown import figure
    from pipelines.ledger.ledgers import check, find

    checked = check(find(state(tmp_path, runs=("r1", "r2")), None))
    cap, left, marks = figure(checked).axes[0].lines
    assert list(cap.get_ydata()) == [8.0] * 13
    assert list(left.get_ydata()) == [row.remaining for row in checked.rows]
    assert list(marks.get_ydata()) == [row.remaining for row in checked.rows if row.kind == "run"]
