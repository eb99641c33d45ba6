"""Credentials follow their files, and warn once a day of an end that comes near."""

import shutil
from datetime import timedelta

import pytest

from deerfield.certificates import load
from deerfield.errors import InvalidInput
from deerfield.renewal import Held
from tests import pki
from tests.pki import NOW


class Calendar:
    def __init__(self, now=NOW):
        self.now = now

    def __call__(self):
        return self.now


def anybody(own):
    """Accepts every owner."""


@pytest.fixture
def ca(tmp_path):
    return pki.authority(tmp_path / "ca")


def held(files, clock=None):
    return Held(files, anybody, clock or Calendar())


def test_a_renewed_pair_is_taken_when_both_halves_are_there(ca, tmp_path):
    old, new = pki.files(ca, tmp_path / "old"), pki.files(ca, tmp_path / "new")
    own = held(old)
    before = own.own.serial
    assert not own.reread()
    shutil.copy(new.certificate, old.certificate)
    with pytest.raises(InvalidInput, match="is not the key of"):
        own.reread()
    assert not own.reread()  # said once
    assert own.own.serial == before
    shutil.copy(new.key, old.key)
    assert own.reread()
    assert own.own.serial == load(new, NOW).serial != before


def test_files_that_were_only_touched_or_are_half_written_change_nothing(ca, tmp_path):
    files = pki.files(ca, tmp_path / "north")
    own, whole = held(files), files.certificate.read_bytes()
    files.certificate.write_bytes(whole[:100])
    with pytest.raises(InvalidInput, match="holds no certificate"):
        own.reread()
    files.certificate.unlink()
    with pytest.raises(InvalidInput, match="cannot be read"):
        own.reread()
    files.certificate.write_bytes(whole)
    assert not own.reread()


def test_the_certificate_of_another_owner_is_not_taken(ca, tmp_path):
    def check(own):
        if own.peer.name != "north":
            raise InvalidInput("not of north")

    files = pki.files(ca, tmp_path / "north")
    south = pki.files(ca, tmp_path / "south", pki.Peer(federation="lungs", role="site", name="south"))
    own = Held(files, check, Calendar())
    for source, target in ((south.certificate, files.certificate), (south.key, files.key)):
        shutil.copy(source, target)
    with pytest.raises(InvalidInput, match="not of north"):
        own.reread()
    assert own.own.peer.name == "north"
    with pytest.raises(InvalidInput, match="not of north"):
        Held(south, check, Calendar())


def test_an_end_within_30_days_is_warned_of_once_a_day_and_no_more_after_a_renewal(ca, tmp_path):
    files, clock = pki.files(ca, tmp_path / "north", days=32), Calendar()
    own = held(files, clock)
    warned = []
    for _ in range(6 * 4):
        warned.append(own.due_warnings())
        clock.now += timedelta(hours=6)
    said = [sentence for sentences in warned for sentence in sentences]
    assert [sentence.split(" ends in ")[1].split(",")[0] for sentence in said] == ["29 days", "28 days", "27 days"]
    assert all("request another now" in sentence for sentence in said)
    new = pki.files(ca, tmp_path / "new")
    for source, target in ((new.certificate, files.certificate), (new.key, files.key)):
        shutil.copy(source, target)
    assert own.reread()
    clock.now += timedelta(days=2)
    assert own.due_warnings() == ()


def test_a_key_that_others_may_read_is_warned_of_every_day(ca, tmp_path):
    files, clock = pki.files(ca, tmp_path / "north"), Calendar()
    files.key.chmod(0o640)
    own = held(files, clock)
    assert "run chmod 600" in own.due_warnings()[0]
    assert own.due_warnings() == ()
    clock.now += timedelta(days=1)
    assert "run chmod 600" in own.due_warnings()[0]


def test_a_certificate_that_ended_while_it_was_held_says_so(ca, tmp_path):
    clock = Calendar()
    own = held(pki.files(ca, tmp_path / "north", days=3), clock)
    own.due_warnings()
    clock.now += timedelta(days=4)
    assert "has expired" in own.due_warnings()[0]
