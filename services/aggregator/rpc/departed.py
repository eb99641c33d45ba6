"""Callers who leave before their answer, in the log: gRPC tells each with a traceback, and it is nobody's fault."""

import logging

import structlog
from grpc._cython.cygrpc import ExecuteBatchError  # type: ignore[import-not-found]  # no public name

GRPC = "grpc._cython.cygrpc"  # the logger of what gRPC's server does outside our methods

log = structlog.get_logger()


def note_departed() -> None:
    """Makes this process log such a caller in one line; every other exception keeps its traceback."""
    logger = logging.getLogger(GRPC)
    if _in_one_line not in logger.filters:
        logger.addFilter(_in_one_line)


def _in_one_line(record: logging.LogRecord) -> bool:
    if record.exc_info is None or not isinstance(record.exc_info[1], ExecuteBatchError):
        return True
    log.info("a caller left before its answer")
    return False
