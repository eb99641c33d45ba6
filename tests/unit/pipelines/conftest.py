"""What the tests of `deerfield pki` share."""

import pytest

from tests.pki_command import deerfield


@pytest.fixture
def ca(tmp_path):
    code, said = deerfield("init", tmp_path / "ca", "--federation", "lungs")
    assert code == 0, said
    return tmp_path / "ca"
