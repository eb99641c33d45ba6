"""A run that was restored from a backup, at a site: taken by an operator's word alone, and charged as a new one."""

from dataclasses import replace

import pytest

from deerfield.certificates import load
from deerfield.identity import Peer
from deerfield.restoration import Trust, sign
from services.client.custody.custody import Custody
from services.client.custody.ledger_file import NAME
from services.client.custody.operator import read_account
from services.client.site import Site
from tests import pki
from tests.pki import NOW
from tests.unit.client.sites import Bench, FakeLink, assigned, policy

INCARNATION = 1_800_000_000


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return pki.authority(tmp_path_factory.mktemp("pki") / "ca")


@pytest.fixture(scope="module")
def signed(ca, tmp_path_factory):
    ada = Peer(federation=pki.FEDERATION, role="operator", name="ada")
    own = load(pki.files(ca, tmp_path_factory.mktemp("pki") / "ada", ada), NOW)
    return sign(own, {"r": INCARNATION}, "b" * 64, NOW)


@pytest.fixture
def trust(ca):
    return Trust(federation=pki.FEDERATION, authority=(ca.folder / "ca.crt").read_bytes())


def serve(state, tasks, trust):
    link, order = FakeLink(tasks), []
    with Custody("north", policy(population={"epsilon": 50.0}), state, trust=trust) as custody:
        build = Bench(order)
        Site(name="north", link=link, account=custody.account, build=lambda _: build, beats=False).serve()
    return link, order


def restored(number=0, incarnation=INCARNATION, signed=None):
    return replace(assigned(number), incarnation=incarnation, restoration=signed)


def account(state):
    return read_account(state / "ledgers" / "p" / NAME)


def test_an_operators_word_is_enough_and_the_run_is_charged_anew(tmp_path, signed, trust):
    first = replace(assigned(), incarnation=1)
    link, _ = serve(tmp_path, [first, restored(signed=signed)], trust)
    assert (len(link.sent), link.declined) == (2, [])
    assert link.sent[0].attestation.update != link.sent[1].attestation.update  # trained again, under fresh noise
    charged = account(tmp_path)
    assert set(charged.runs) == {("r", 1), ("r", INCARNATION)}
    assert charged.epsilon == pytest.approx(2 * charged.runs["r", 1].epsilon_after)


@pytest.mark.parametrize("without", ["word", "ca"])
def test_without_it_nothing_is_charged_or_read_and_the_reason_is_told(tmp_path, signed, trust, without):
    task = restored(signed=None if without == "word" else signed)
    link, order = serve(tmp_path, [task], None if without == "ca" else trust)
    ((reason, detail),) = link.declined
    assert (reason, link.sent) == ("POLICY_REFUSED", [])
    assert "only with the word of an operator" in detail
    assert "trainer" not in order
    assert account(tmp_path).runs == {}


def test_a_word_on_another_incarnation_is_not_enough(tmp_path, signed, trust):
    link, order = serve(tmp_path, [restored(incarnation=INCARNATION + 1, signed=signed)], trust)
    assert [reason for reason, _ in link.declined] == ["POLICY_REFUSED"]
    assert "trainer" not in order


def test_what_was_reserved_once_goes_on_without_asking_again(tmp_path, signed, trust):
    serve(tmp_path, [restored(signed=signed)], trust)
    link, _ = serve(tmp_path, [restored(1)], None)  # another day: the certificate may have expired
    assert (len(link.sent), link.declined) == (1, [])
