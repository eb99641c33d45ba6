"""`deerfield ledger export`: a file and a page for an auditor who has nothing of ours."""

import json
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.command import deerfield
from tests.ledger_command import chain, ledger_of, state


def test_an_export_is_checked_by_hand_without_deerfield(tmp_path):
    """What the page tells an auditor to do."""
    state(tmp_path)
    assert deerfield("ledger", "export", tmp_path, "--out", tmp_path / "audit")[0] == 0
    export, previous = json.loads((tmp_path / "audit.json").read_text()), "0" * 64
    signer = Ed25519PublicKey.from_public_bytes(bytes.fromhex(export["public_key"]))
    for line in export["entries"]:
        entry = json.loads(line)
        signature, value = entry.pop("signature"), entry.pop("hash")
        text = json.dumps(entry, sort_keys=True, separators=(",", ":"))
        assert sha256(text.encode()).hexdigest() == value
        signer.verify(bytes.fromhex(signature), b"deerfield ledger entry v1\n" + bytes.fromhex(value))
        assert entry["previous"] == previous
        previous = value
    assert export["head"]["hash"] == previous
    assert [run["updates"] for run in export["runs"]] == [2]
    assert {each["update"] for each in export["updates"]} == {path.stem for path in (tmp_path / "vault").iterdir()}
    assert export["verification"]["sound"]


def test_the_page_has_every_entry_and_no_address_elsewhere(tmp_path):
    state(tmp_path, runs=("r1", "<b>r2"))
    deerfield("ledger", "export", tmp_path, "--out", tmp_path / "audit")
    page = (tmp_path / "audit.html").read_text()
    for entry in chain(tmp_path):
        assert f">{entry.hash[:16]}<" in page
    for address in ("http:", "https:", "//", "src=", "url(h", "@import"):
        assert address not in page
    assert "<svg" in page
    assert "<b>r2" not in page
    assert "Sound." in page


def test_an_export_is_verified_like_the_ledger_itself(tmp_path):
    state(tmp_path)
    deerfield("ledger", "export", tmp_path, "--out", tmp_path / "audit.json")
    code, said = deerfield("ledger", "verify", tmp_path / "audit.json")
    assert (code, "updates not at hand" in said) == (0, True)
    text = (tmp_path / "audit.json").read_text()
    (tmp_path / "audit.json").write_text(text.replace('\\"steps\\":10', '\\"steps\\":9', 1))
    assert deerfield("ledger", "verify", tmp_path / "audit.json")[0] == 1
    assert deerfield("ledger", "export", tmp_path, "--out", tmp_path / "audit")[0] == 2  # nothing is overwritten


def test_a_damaged_ledger_is_exported_as_it_is_and_says_so(tmp_path):
    path = ledger_of(state(tmp_path))
    data = bytearray(path.read_bytes())
    place = data.rindex(b'"kind":"commit"')
    data[place] = 0xFF  # no text any more
    path.write_bytes(data)
    code, said = deerfield("ledger", "export", tmp_path, "--out", tmp_path / "audit")
    assert code == 1
    assert "not sound" in said
    assert "Not sound." in (tmp_path / "audit.html").read_text()
    again = deerfield("ledger", "verify", tmp_path / "audit.json")[1]
    assert again.splitlines()[:-1] == deerfield("ledger", "verify", ledger_of(tmp_path))[1].splitlines()[:-1]
    assert json.loads((tmp_path / "audit.json").read_text())["terms"]["epsilon_left"] is None
