"""Files about runs that wait to be logged in MLflow, as one transaction reads and writes them."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from services.aggregator.sql.changes import Changes
from services.aggregator.sql.tables import attachments


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file about a run: its bytes are a published blob."""

    run: str
    name: str
    sha256: str


class Attachments:
    """`Edge.attachments`: the part of a transaction that is about files."""

    def __init__(self, connection: Connection, changes: Changes) -> None:
        self._connection = connection
        self._changes = changes

    def known(self, run: str, name: str) -> str | None:
        """The sha256 of a file that came before under this name."""
        query = select(attachments.c.sha256).where(*_of(run, name))
        return self._connection.execute(query).scalar_one_or_none()

    def count(self, run: str) -> int:
        """How many files a run has."""
        return self._connection.execute(select(func.count()).where(attachments.c.run == run)).scalar_one()

    def put(self, found: Attachment) -> None:
        """Names a file, in the place of one before it; it waits to be logged."""
        self._connection.execute(attachments.delete().where(*_of(found.run, found.name)))
        row = {"run": found.run, "name": found.name, "sha256": found.sha256, "logged": False}
        self._connection.execute(insert(attachments).values(row))
        self._changes.note("attached", found.run, name=found.name, sha256=found.sha256)

    def waiting(self) -> Sequence[Attachment]:
        """Every file that is not logged yet: the blobs of these are kept."""
        columns = (attachments.c.run, attachments.c.name, attachments.c.sha256)
        query = select(*columns).where(attachments.c.logged.is_(False)).order_by(*columns)
        return [Attachment(*row) for row in self._connection.execute(query)]

    def logged(self, found: Attachment) -> None:
        """Notes that a file is in MLflow, unless another has taken its place meanwhile."""
        where = (*_of(found.run, found.name), attachments.c.sha256 == found.sha256)
        self._connection.execute(update(attachments).where(*where).values(logged=True))
        self._changes.note("attachment_logged", found.run, name=found.name, sha256=found.sha256)


def _of(run: str, name: str) -> tuple[ColumnElement[bool], ...]:
    return attachments.c.run == run, attachments.c.name == name
