"""What a person reads while their command waits."""

import pytest

from deerfield.errors import HandshakeFailed, NoRoom, TooBusy, Unreachable
from pipelines.runs.operator_link import say


@pytest.mark.parametrize(
    ("cause", "why"),
    [
        (TooBusy("64 runs are running; the limit is 64"), "64 runs are running; the limit is 64"),
        (NoRoom("the database's disk is full"), "the database's disk is full"),
        (HandshakeFailed("the certificate has expired"), "the certificate has expired"),
        (Unreachable("no answer (UNAVAILABLE): connection refused"), "the aggregator does not answer"),
    ],
)
def test_a_pause_says_why_there_is_one(capsys, cause, why):
    say(cause, 4.6)
    assert capsys.readouterr().err == f"{why}; asking again in 5 s\n"
