"""What every line of the log says about where it comes from: call, site, run, round, phase."""

from contextlib import AbstractContextManager
from typing import Any

from structlog.contextvars import bound_contextvars

from deerfield.exchange import Key
from deerfield.wire.limits import NAME_CHARS


def log_context(call: str, request: Any, site: str = "") -> AbstractContextManager[None]:
    """For the lines that are written while a call is answered; what a request lacks is left out."""
    key = getattr(request, "key", None)
    run = str(getattr(key or request, "run", ""))[:NAME_CHARS]
    numbers = {"round": key.round, "phase": key.phase} if key is not None else {}
    named = {name: value for name, value in (("site", site), ("run", run)) if value}
    return bound_contextvars(call=call.rpartition("/")[2], **named, **numbers)


def phase_context(key: Key) -> AbstractContextManager[None]:
    """For the lines that are written while a phase is worked on."""
    return bound_contextvars(run=key.run, round=key.round, phase=key.phase)
