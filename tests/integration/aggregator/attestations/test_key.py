"""The aggregator's own key: made once, for its owner alone, where its settings say."""

import stat

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from deerfield import keyfile
from deerfield.attestation import public_key
from deerfield.errors import InvalidInput
from services.aggregator.settings import read_settings


def test_the_key_is_made_once_for_its_owner_alone(tmp_path):
    path = tmp_path / "new" / "aggregator.key"
    made = keyfile.load(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert public_key(keyfile.load(path)) == public_key(made)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o640, 0o660, 0o440])
def test_a_key_that_its_group_may_read_is_used_with_a_warning(tmp_path, caplog, mode):
    path = tmp_path / "site.key"
    made = keyfile.load(path)
    assert caplog.records == []
    path.chmod(mode)
    assert public_key(keyfile.load(path)) == public_key(made)
    (line,) = caplog.records
    assert (line.levelname, line.getMessage()) == (
        "WARNING",
        f"{path} is open to its group (mode {mode:04o}), and holds the signing key; run chmod 600 on it",
    )


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644])
def test_a_key_that_everybody_may_read_or_change_is_refused(tmp_path, caplog, mode):
    path = tmp_path / "site.key"
    keyfile.load(path)
    path.chmod(mode)
    with pytest.raises(InvalidInput, match=rf"open to everybody \(mode {mode:04o}\).*; run chmod 600 on it"):
        keyfile.load(path)
    assert caplog.records == []


def test_a_key_file_that_cannot_be_trusted_or_used_is_one_sentence(tmp_path):
    path = tmp_path / "aggregator.key"
    keyfile.load(path)
    path.write_text("-----BEGIN NOTHING-----\n")
    with pytest.raises(InvalidInput, match="holds no signing key"):
        keyfile.load(path)
    other = X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(other)
    with pytest.raises(InvalidInput, match="another kind"):
        keyfile.load(path)
    with pytest.raises(InvalidInput, match="cannot be used"):
        keyfile.load(path / "below a file")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--database", "sqlite:////data/runs.db"), "/data/runs.key"),
        (("--database", "sqlite:///runs.db?timeout=5"), "runs.key"),
        (("--database", "postgresql://me@db/runs", "--blobs", "/data/blobs"), "/data/aggregator.key"),
        (("--key", "/keys/own.pem"), "/keys/own.pem"),
    ],
)
def test_the_key_lies_beside_the_database_unless_it_is_named(flags, expected):
    assert str(read_settings(flags, {}).key) == expected
