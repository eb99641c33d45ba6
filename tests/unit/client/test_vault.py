"""The signing key and the stored updates of a site."""

import os
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from deerfield import keyfile
from deerfield.attestation import public_key
from deerfield.errors import InvalidInput, LedgerDamaged, LedgerUnwritable
from deerfield.tensors import digest
from services.client.custody.vault import Vault

UPDATE = {"head.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "head.bias": np.float32([0.5, -0.5])}
TENSORS = st.dictionaries(
    st.text(min_size=1, max_size=20).filter(lambda name: name != "__metadata__"),
    arrays.arrays(np.float32, arrays.array_shapes(min_dims=1, max_dims=3, max_side=4), elements=st.floats(width=32)),
    max_size=3,
)


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    first = keyfile.load(tmp_path / "new" / keyfile.SITE)
    assert public_key(keyfile.load(tmp_path / "new" / keyfile.SITE)) == public_key(first)
    assert os.stat(tmp_path / "new" / keyfile.SITE).st_mode & 0o777 == 0o600
    assert [each.name for each in (tmp_path / "new").iterdir()] == [keyfile.SITE]
    assert public_key(keyfile.load(tmp_path / "other" / keyfile.SITE)) != public_key(first)


@pytest.mark.parametrize("mode", [0o604, 0o645, 0o666])
def test_a_key_that_everybody_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    keyfile.load(tmp_path / keyfile.SITE)
    (tmp_path / keyfile.SITE).chmod(mode)
    with pytest.raises(InvalidInput, match="chmod 600"):
        keyfile.load(tmp_path / keyfile.SITE)


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\n"])
def test_a_file_that_is_no_key_is_refused_and_never_overwritten(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / keyfile.SITE
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(InvalidInput, match="holds no signing key"):
        keyfile.load(tmp_path / keyfile.SITE)
    assert path.read_bytes() == content


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    other = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / keyfile.SITE).write_bytes(other)
    (tmp_path / keyfile.SITE).chmod(0o600)
    with pytest.raises(InvalidInput, match="another kind than Ed25519"):
        keyfile.load(tmp_path / keyfile.SITE)


def test_a_key_or_vault_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InvalidInput, match="may write to"):
        keyfile.load(tmp_path / "file" / "x" / keyfile.SITE)
    with pytest.raises(LedgerUnwritable, match="may write to"):
        Vault(tmp_path / "file" / "x")
    vault = Vault(tmp_path / "vault")
    (tmp_path / "vault").rmdir()
    with pytest.raises(LedgerUnwritable, match="nothing is sent"):
        vault.put(UPDATE)


@settings(max_examples=50, deadline=None)
@given(TENSORS)
def test_an_update_comes_back_bit_by_bit(tmp_path_factory: pytest.TempPathFactory, update: dict) -> None:
    vault = Vault(tmp_path_factory.mktemp("vault"))
    name = vault.put(update)
    back = vault.get(name)
    assert name == digest(update) == digest(back)
    assert {each: array.tobytes() for each, array in back.items()} == {k: v.tobytes() for k, v in update.items()}
    assert vault.has(name)


def test_an_array_that_is_a_view_is_stored_as_what_it_shows(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    turned = {"head.weight": np.arange(6, dtype=np.float32).reshape(2, 3).T}
    np.testing.assert_array_equal(vault.get(vault.put(turned))["head.weight"], turned["head.weight"])


def test_the_same_update_is_written_once_and_leftovers_go(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    name = vault.put(UPDATE)
    written = os.stat(tmp_path / f"{name}.safetensors")
    (tmp_path / "x.part").write_bytes(b"half")
    assert Vault(tmp_path).put(UPDATE) == name
    assert os.stat(tmp_path / f"{name}.safetensors") == written
    assert len(list(tmp_path.iterdir())) == 1


def test_any_change_to_a_stored_update_is_seen(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    name = vault.put(UPDATE)
    path = tmp_path / f"{name}.safetensors"
    whole = path.read_bytes()
    start = len(whole) - sum(array.nbytes for array in UPDATE.values())
    for place in range(start, len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 0x10
        path.write_bytes(broken)
        with pytest.raises(LedgerDamaged):
            vault.get(name)
    for place in range(0, len(whole), 5):
        path.write_bytes(whole[:place])
        with pytest.raises(LedgerDamaged):
            vault.get(name)
    with pytest.raises(LedgerDamaged):
        vault.put(UPDATE)
    path.write_bytes(whole)
    assert digest(vault.get(name)) == name


def test_an_update_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    assert not vault.has("ab" * 32)
    with pytest.raises(LedgerDamaged, match="is no digest"):
        vault.get("../../etc/passwd")
    with pytest.raises(LedgerDamaged, match="restore the folder"):
        vault.get("ab" * 32)
