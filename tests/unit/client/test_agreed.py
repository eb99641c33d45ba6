"""What a ledger and the aggregator's record of it have in common, through restored copies and lost memories."""

from dataclasses import replace

import pytest
import structlog

from deerfield.attestation import countersign
from deerfield.errors import InvalidInput
from services.client.custody.agreed import Agreed
from tests.unit.client.sites import AGGREGATOR, FakeLink, assigned, serve
from tests.unit.core.test_attestation import UNSIGNED


@pytest.fixture(autouse=True)
def logged():
    with structlog.testing.capture_logs() as lines:
        yield lines


def at(sequence):
    """The aggregator's word on entry `sequence`."""
    return countersign(AGGREGATOR, replace(UNSIGNED, ledger_sequence=sequence))


def test_the_newest_head_is_kept_whoever_tells_it(tmp_path):
    agreed = Agreed(tmp_path)
    agreed.compare(None)
    assert agreed.newest() is None
    for sequence, newest in ((3, 3), (7, 7), (5, 7)):
        agreed.advance(at(sequence))
        assert Agreed(tmp_path).newest() == at(newest)
    agreed.compare(at(9))
    assert agreed.newest() == at(9)


@pytest.mark.parametrize("told", [None, at(2)])
def test_nothing_newer_is_agreed_on_with_an_aggregator_that_has_lost_its_memory(tmp_path, logged, told):
    agreed = Agreed(tmp_path)
    agreed.compare(at(3))
    agreed.compare(told)
    assert [line["log_level"] for line in logged] == ["warning"]
    agreed.compare(at(8))
    agreed.advance(at(9))
    assert Agreed(tmp_path).newest() == at(3)
    agreed.reconciled(at(18))
    agreed.advance(at(21))
    assert Agreed(tmp_path).newest() == at(21)


def test_a_file_that_holds_no_head_is_refused(tmp_path):
    (tmp_path / "agreed.json").write_text("{}")
    with pytest.raises(InvalidInput, match=r"agreed.json is no countersigned record"):
        Agreed(tmp_path).newest()


def test_a_site_keeps_the_receipt_of_its_update_beside_the_ledger(tmp_path):
    link = FakeLink([assigned()])
    serve(link, tmp_path)
    assert Agreed(tmp_path / "ledgers/p").newest() == countersign(AGGREGATOR, link.sent[0].attestation)
    serve(FakeLink([assigned(1)], record=None), tmp_path)  # a link that knows nothing of it
    assert Agreed(tmp_path / "ledgers/p").newest() == countersign(AGGREGATOR, link.sent[0].attestation)
