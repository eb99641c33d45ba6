import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deerfield.errors import InvalidInput
from deerfield.fingerprint import fingerprint, overlap, read_fingerprints

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)


def test_a_text_is_the_same_whatever_its_case_and_spaces():
    assert fingerprint("  Fever\n and\tCOUGH ") == fingerprint("fever and cough")
    assert fingerprint("\ufb01ne \u00c5ngstr\u00f6m") == fingerprint("fine A\u030angstro\u0308m")
    assert fingerprint("fever and cough") != fingerprint("feverand cough")


def test_it_never_changes_because_it_is_kept_in_files():
    assert fingerprint("Fever") == "1ac1e40a5677e588bbe7dde9420a121eb33e86d7a841d691ca666c2e2467a79a"
    assert fingerprint(GREY) == "a10b1c22b550380bb8b9054a74da976469f2b432ec8590e553dbca5bb2180a17"


def test_a_colour_image_without_colour_is_the_grey_one():
    assert fingerprint(np.stack([GREY] * 3, axis=-1)) == fingerprint(GREY) == fingerprint(GREY[..., None])
    coloured = np.stack([GREY, GREY, GREY + 1], axis=-1)
    assert fingerprint(coloured) != fingerprint(GREY)


def test_an_image_is_its_pixels_and_its_shape():
    assert fingerprint(GREY) != fingerprint(GREY.reshape(4, 3))
    assert fingerprint(GREY[:, ::-1]) == fingerprint(np.ascontiguousarray(GREY[:, ::-1]))
    one_off = GREY.copy()
    one_off[2, 3] ^= 1
    assert fingerprint(one_off) != fingerprint(GREY)


@settings(deadline=None)
@given(st.text())
def test_any_amount_of_white_space_is_one_space(text):
    assert fingerprint("\n" + " \t".join(text.split()) + "  ") == fingerprint(text)


@pytest.mark.parametrize("pixels", [np.zeros((2, 2)), np.zeros(4, np.uint8), np.zeros((2, 2, 4), np.uint8)])
def test_what_is_no_image_is_refused(pixels):
    with pytest.raises(InvalidInput, match="decode it first"):
        fingerprint(pixels)


def test_what_two_sets_share_is_found_by_its_place():
    training = [fingerprint(text) for text in ("one", "two")]
    assert overlap([fingerprint(text) for text in ("three", "TWO ", "one")], training) == (1, 2)


def test_a_file_of_fingerprints_is_read_or_refused(tmp_path):
    path = tmp_path / "examples.sha256"
    path.write_text(f"{fingerprint('one')}\n{fingerprint('two')}\n")
    assert read_fingerprints(path) == (fingerprint("one"), fingerprint("two"))
    path.write_text(f"{fingerprint('one')}\nnone\n")
    with pytest.raises(InvalidInput, match="line 2: 'none' is no fingerprint"):
        read_fingerprints(path)
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        read_fingerprints(tmp_path / "missing")
