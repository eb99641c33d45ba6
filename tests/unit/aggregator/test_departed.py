import logging

import pytest
import structlog
from grpc._cython.cygrpc import ExecuteBatchError

from services.aggregator.rpc.departed import GRPC, note_departed


@pytest.mark.parametrize("error", [ExecuteBatchError("the answer found nobody"), RuntimeError("a fault")])
def test_a_caller_who_left_is_one_line_and_a_fault_keeps_its_traceback(error, caplog):
    note_departed()
    note_departed()  # another server in this process
    with structlog.testing.capture_logs() as ours:
        try:
            raise error
        except Exception:
            logging.getLogger(GRPC).exception("Unexpected")
    theirs = [record for record in caplog.records if record.exc_info]
    left = isinstance(error, ExecuteBatchError)
    assert [line["event"] for line in ours] == ["a caller left before its answer"] * left
    assert len(theirs) == (not left)
