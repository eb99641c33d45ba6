"""Takes small files about runs; the recorder logs them in MLflow, and until then their blobs are kept."""

from hashlib import sha256

from deerfield.documents.partition_manifest import NAME as MANIFEST
from deerfield.documents.partition_manifest import Manifest
from deerfield.documents.reading import parsed
from deerfield.errors import InvalidInput, TooLarge
from deerfield.wire import limits
from services.aggregator.desk import Desk
from services.aggregator.sql.attachments import Attachment
from services.aggregator.sql.store import Edge


class Attaching:
    """Files about runs; may be called from any thread. Without MLflow (`tracked`) there is nowhere to put them."""

    def __init__(self, desk: Desk, *, tracked: bool) -> None:
        self._desk = desk
        self._tracked = tracked

    def attach(self, run: str, name: str, content: bytes) -> str:
        """Keeps a file, in the place of an earlier one of this name, and answers its sha256; the same again is nothing.

        Raises:
            UnknownRun: there is no such run.
            TooLarge: the run has too many files.
            InvalidInput: nothing is tracked, or it is a manifest that cannot be read, or not the one that was kept.
        """
        if not self._tracked:
            raise InvalidInput("this aggregator has no MLflow to log a file in; start it with --tracking URI")
        file = Attachment(run, name, sha256(content).hexdigest())
        if name == MANIFEST:
            parsed(Manifest, content, MANIFEST)
        with self._desk.store.edge() as edge:
            edge.run(run)
            if _known(edge, file) == file.sha256:
                return file.sha256
        self._desk.published.put(file.sha256, content)  # before the row that names it
        with self._desk.store.edge() as edge:
            if _known(edge, file) is None and edge.attachments.count(run) >= limits.ATTACHMENTS:
                raise TooLarge(f"{run} has {limits.ATTACHMENTS} files; the limit is {limits.ATTACHMENTS}, by name")
            edge.attachments.put(file)
            detail = {"name": name, "sha256": file.sha256, "bytes": len(content)}
            edge.add_event(run, "attached", detail, self._desk.clock())
        return file.sha256


def _known(edge: Edge, file: Attachment) -> str | None:
    """The sha256 of a file that came before; raises InvalidInput where that is another manifest, which stays."""
    known = edge.attachments.known(file.run, file.name)
    if file.name == MANIFEST and known not in (None, file.sha256):
        raise InvalidInput(
            f"{file.run} has kept the {MANIFEST} with sha256 {str(known)[:12]}, and this one has {file.sha256[:12]}: "
            "whose data a run was trained on does not change; give the one that it has kept"
        )
    return known
