"""What the `deerfield ledger` commands have in common: folders they cannot use, and their help."""

from dataclasses import replace

import pytest

from tests.command import deerfield
from tests.ledger_command import state
from tests.ledgers import RENYI


@pytest.mark.parametrize("command", ["show", "verify", "export"])
def test_bad_folders_are_one_sentence_and_exit_code_2(tmp_path, command):
    more = ("--out", tmp_path / "x") if command == "export" else ()
    state(tmp_path / "site")
    state(tmp_path / "site", replace(RENYI, population="hearts"), runs=())
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.json").write_text("{}")
    cases = {
        tmp_path / "nowhere": "there is no such folder",
        tmp_path / "empty": "has no ledger",
        tmp_path: "name one: site",
        tmp_path / "site": "say which with --population",
        tmp_path / "notes.json": "no export of one",
    }
    for folder, part in cases.items():
        code, said = deerfield("ledger", command, folder, *more)
        assert (code, part in said, "\n" in said) == (2, True, False), said
    code, said = deerfield("ledger", command, tmp_path / "site", *more, "--population", "hearts")
    assert code == 0
    code, said = deerfield("ledger", command, tmp_path / "site", *more, "--population", "skin")
    assert (code, "hearts, lungs" in said) == (2, True)


def test_help_says_the_exit_codes():
    assert "Exit code 3" in deerfield("plan", "--help")[1]
    assert "Exit code 1" in deerfield("ledger", "verify", "--help")[1]
