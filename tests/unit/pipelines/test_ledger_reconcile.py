"""`deerfield ledger reconcile`: a ledger restored from a copy is charged what it lacks."""

from dataclasses import replace
from math import inf

import pytest
from typer.testing import CliRunner

from deerfield import durable, keyfile
from deerfield.attestation import public_key
from deerfield.ledger.account import fold
from deerfield.record import decode, encode
from pipelines import cli
from services.client.custody.agreed import Agreed
from services.client.custody.ledger_file import Ledger
from tests.attesting import key_of
from tests.command import deerfield
from tests.ledger_command import AGGREGATOR, chain, ledger_of, record_of, state
from tests.ledgers import TERMS, plan


@pytest.fixture
def behind(tmp_path):
    """A site restored from a copy that lacks its second run, and the aggregator's record of the whole."""
    state(tmp_path)
    copy = ledger_of(tmp_path).read_bytes()
    Agreed(ledger_of(tmp_path).parent).advance(record_of(tmp_path))
    with Ledger.open(ledger_of(tmp_path).parent, keyfile.load(tmp_path / keyfile.SITE), TERMS) as ledger:
        ledger.reserve_run(plan("r2", noise_multiplier=1.5))
    record = record_of(tmp_path)
    ledger_of(tmp_path).write_bytes(copy)
    return tmp_path, record


ANSWERS = ("--operator", "Dr. Ada", "--reason", "disk restored from Monday")


def test_reconciling_charges_what_the_record_has_beyond_the_ledger(behind):
    folder, record = behind
    before = fold(chain(folder)).epsilon
    durable.replaced(folder / "records" / "lungs.json", encode(record))
    code, said = deerfield("ledger", "reconcile", folder, *ANSWERS, "--yes")
    assert code == 0, said
    entry = chain(folder)[-1]
    assert (entry.kind, entry.sequence) == ("reconcile", record.sequence + 1)
    assert entry.detail["epsilon"] == pytest.approx(record.epsilon_after - before)
    assert entry.detail["delta"] == pytest.approx(1e-6)
    assert (entry.detail["operator"], entry.detail["reason"]) == (ANSWERS[1], ANSWERS[3])
    assert fold(chain(folder)).epsilon == pytest.approx(record.epsilon_after)
    assert deerfield("ledger", "verify", folder)[0] == 0
    again = deerfield("ledger", "reconcile", folder, *ANSWERS, "--yes")
    assert again[0] == 2
    assert "nothing to reconcile" in again[1]


def test_reconciling_asks_first(behind):
    folder, record = behind
    durable.replaced(folder / "records" / "lungs.json", encode(record))
    before = ledger_of(folder).read_bytes()
    done = CliRunner().invoke(cli.app, ["ledger", "reconcile", str(folder), *ANSWERS], input="n\n")
    assert done.exit_code == 1
    assert "cannot be taken back" in done.output
    assert ledger_of(folder).read_bytes() == before


def test_without_a_record_the_cost_is_infinite_and_must_be_said(behind):
    folder, _ = behind
    code, said = deerfield("ledger", "reconcile", folder, *ANSWERS, "--yes")
    assert code == 2
    assert "--unknown-cost" in said
    assert deerfield("ledger", "reconcile", folder, *ANSWERS, "--unknown-cost", "--yes")[0] == 0
    assert fold(chain(folder)).epsilon == inf
    assert deerfield("ledger", "verify", folder)[0] == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"site": "beta"}, "of site 'beta'"),
        ({"population": "hearts"}, "not lungs"),
        ({"signer": key_of("a stranger")}, "the aggregator that this site knows"),
    ],
)
def test_a_record_of_something_else_or_by_a_stranger_is_refused(behind, changes, said):
    folder, _ = behind
    (folder / "aggregator.pub").write_text(public_key(AGGREGATOR))
    path = folder / "sent.json"
    path.write_bytes(encode(record_of(folder, **changes)))
    before = ledger_of(folder).read_bytes()
    code, sentence = deerfield("ledger", "reconcile", folder, *ANSWERS, "--record", path, "--yes")
    assert (code, said in sentence) == (2, True), sentence
    assert ledger_of(folder).read_bytes() == before


def test_a_record_that_was_changed_is_refused(behind):
    folder, record = behind
    path = folder / "sent.json"
    path.write_bytes(encode(replace(record, epsilon_after=0.0)))
    code, said = deerfield("ledger", "reconcile", folder, *ANSWERS, "--record", path, "--yes")
    assert (code, "not signed" in said) == (2, True)


def test_a_ledger_that_a_site_has_open_is_not_reconciled(behind):
    folder, record = behind
    durable.replaced(folder / "records" / "lungs.json", encode(record))
    with Ledger.open(ledger_of(folder).parent, keyfile.load(folder / keyfile.SITE), TERMS):
        code, said = deerfield("ledger", "reconcile", folder, *ANSWERS, "--yes")
    assert (code, "open in another process" in said) == (2, True)


def test_a_record_reads_back_as_it_was_written(tmp_path):
    state(tmp_path)
    for epsilon in (0.0, 1.25, inf):
        record = record_of(tmp_path, epsilon_after=epsilon)
        assert decode(encode(record), "it") == record
