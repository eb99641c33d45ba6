"""One configuration of the log for both services: JSON for machines, or a line for people; always on stderr.

A service's last sentence, `error: ...`, is one of its lines only where JSON was asked for: see `ending`.
"""

import logging
from typing import Literal, TextIO, TypeAlias, get_args

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from deerfield.errors import InvalidInput

Form: TypeAlias = Literal["json", "console"]
FORMS: tuple[Form, ...] = get_args(Form)


def configure(asked: str, service: str, stream: TextIO) -> None:
    """Sets the log of this process up: ours, and what libraries say through `logging`.

    `asked` empty: JSON, unless a person is looking at a terminal. Raises InvalidInput for another word.
    """
    if asked not in ("", *FORMS):
        raise InvalidInput(f"log: {asked!r} is no form of a log; choose one of {', '.join(FORMS)}")
    form = asked or ("console" if stream.isatty() else "json")
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper("iso", utc=True),
        _named(service),
        structlog.processors.StackInfoRenderer(),
    ]
    last: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if form == "json"
        else [structlog.dev.ConsoleRenderer(colors=stream.isatty())]
    )
    structlog.configure(
        processors=[*shared, *last],
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    _take_over_logging(shared, last, stream)


def _named(service: str) -> Processor:
    def named(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {**event, "service": service}

    return named


def _take_over_logging(shared: list[Processor], last: list[Processor], stream: TextIO) -> None:
    """What alembic, mlflow or asyncio say becomes lines of the same form."""
    handler = logging.StreamHandler(stream)
    drop = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[drop, *last],
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(allow=()), structlog.stdlib.add_logger_name],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
