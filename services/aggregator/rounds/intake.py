"""Takes updates in: announced, sent chunk by chunk, verified and sealed. Every step may be asked again."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from deerfield.attestation import countersign
from deerfield.attested import check_attestation, check_follows
from deerfield.budget import check_account, check_spend
from deerfield.errors import AlreadySealed, BadAttestation, BadRequest, ChunksMissing, RoundClosed, StaleBase
from deerfield.exchange import Announcement, Key, UploadStatus
from deerfield.manifest import Manifest, check, verify
from deerfield.types import Attestation, Countersigned
from services.aggregator.blobstore.blobs import Blobs
from services.aggregator.desk import Desk
from services.aggregator.rounds.membership import member, open_task
from services.aggregator.rounds.norms import norm_limit
from services.aggregator.rounds.refused import Refused
from services.aggregator.sql.heads import Heads
from services.aggregator.sql.records import TaskRow, UploadRow
from services.aggregator.sql.store import Edge


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealing:
    """An upload about to be sealed; `verify` reads all of it and may run on any thread."""

    site: str
    key: Key
    manifest: Manifest
    blobs: Blobs
    sealed: bool  # already: there is nothing left to verify
    norm_limit: float

    def verify(self) -> None:
        """Raises ChunksMissing, NotFinite, DigestMismatch or NormTooLarge if the bytes are not what they must be."""
        if self.sealed:
            return
        if missing := self.blobs.missing(self.manifest.chunks):
            raise ChunksMissing(f"{len(missing)} of {len(self.manifest.chunks)} chunks have not arrived")
        verify(self.manifest, self.blobs.read, self.norm_limit)  # the digest of the whole covers every chunk


class Intake:
    """The way of an update from announcement to seal. Key = (run, incarnation, round, phase, site)."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._refused = Refused(desk)
        self._uploading: dict[str, Key] = {}  # by site: what its newest announcement is for

    def audit(self, site: str, key: Key, announcement: Announcement) -> None:
        """Checks the attestation against call and run; may take a second, and may run on any thread.

        Raises:
            BadAttestation: it is not signed, not about this update, or its epsilon cannot be.
            BadRequest, BudgetExhausted: the spend is not what the run allows.
        """
        with self._refused.noted(site, key):
            with self._desk.store.edge() as edge:
                run = member(edge, key.run, site)
                task = edge.task(key, site)
            if task is not None:
                attestation, spec = announcement.attestation, run.spec
                check_attestation(attestation, site, spec.population, key, announcement.manifest.digest)
                declares = self._desk.make(spec).declares
                check_spend(spec, declares, task.epochs, attestation.spend, attestation.beside)
                check_account(spec, attestation)

    def begin(self, site: str, key: Key, announcement: Announcement) -> frozenset[str]:
        """Announces, and answers the chunks that are not here yet, right here; raises what `announce` raises."""
        manifest = self.announce(site, key, announcement)
        return self.missing(manifest) if manifest else frozenset()

    def announce(self, site: str, key: Key, announcement: Announcement) -> Manifest | None:
        """Keeps the announcement of an update, which pins its chunks; answers what may be `missing`: None once sealed.

        Raises:
            UnknownRun, NotMember, RunEnded, RoundClosed: nobody waits for it.
            AlreadySealed, StaleBase: another one is sealed; it was trained against other tensors.
            UnknownTensor, WrongShape, WrongDtype, TooLarge, BadRequest, BudgetExhausted: it is not what was asked for.
            BadAttestation: its attestation is not valid, or is not by the site's key and after its newest head.
        """
        self.hear(site)
        self.audit(site, key, announcement)
        with self._refused.noted(site, key), self._desk.store.edge() as edge:
            if row := self._sealed(edge, site, key, announcement.manifest.digest):
                _check_same(row.announcement.attestation, announcement.attestation)
                return None
            task = _unanswered(edge, key, site)
            if announcement.base != task.start.digest:
                raise StaleBase(f"the update was trained against {announcement.base}, not {task.start.digest}")
            check(announcement.manifest, task.schema)
            attestation, now = announcement.attestation, self._desk.clock()
            _check_ledger(edge.heads, attestation)
            edge.heads.pin(site, attestation.public_key, now)
            # from here on the site's bytes arrive: whatever becomes of them, its ledger has come so far
            edge.heads.record(countersign(self._desk.key, attestation), attestation, now)
            edge.uploads.put(key, site, announcement)
            if task.away == "LOST":
                edge.set_away(key, site, "")
        self._uploading[site] = key
        self._desk.presence.moved(key, self._desk.clock())
        return announcement.manifest

    def missing(self, manifest: Manifest) -> frozenset[str]:
        """The chunks of an announced update that are not here yet; may run on any thread."""
        return self._desk.uploads.missing(manifest.chunks)

    def announced(self, site: str, key: Key) -> str:
        """The digest of what the site has announced for a task; empty if it has announced nothing."""
        with self._desk.store.edge() as edge:
            row = edge.uploads.get(key, site)
        return row.announcement.manifest.digest if row else ""

    def hear(self, site: str) -> None:
        """Notes that a site is there: nobody is lost in the middle of a long transfer."""
        self._desk.presence.saw(site, self._desk.clock())

    def received(self, site: str) -> None:
        """Notes that a chunk came: no deadline ends a transfer that goes on."""
        self.hear(site)
        key = self._uploading.get(site)
        if key is not None and self._desk.presence.is_open(key):
            self._desk.presence.moved(key, self._desk.clock())

    def expected(self, site: str) -> frozenset[str]:
        """The chunks that a site may send: those it has announced."""
        self.hear(site)
        with self._desk.store.edge() as edge:
            rows = edge.uploads.announced(site)
        return frozenset[str]().union(*(row.announcement.manifest.chunks for row in rows))

    def put(self, expected: frozenset[str], sha: str, data: bytes) -> None:
        """Keeps a chunk; may run on any thread.

        Raises:
            BadRequest: it is not one of the `expected`.
            DigestMismatch: it does not have the sha256 that names it.
        """
        self.put_all(expected, [(sha, data)])

    def put_all(self, expected: frozenset[str], chunks: Sequence[tuple[str, bytes]]) -> None:
        """As `put` for each, at less cost; what came before a chunk that is refused is kept."""
        known = list(takewhile(lambda chunk: chunk[0] in expected, chunks))
        self._desk.uploads.put_all(known)
        if len(known) < len(chunks):
            raise BadRequest(f"chunk {chunks[len(known)][0]} was not announced; BeginUpload comes first")

    def sealing(self, site: str, key: Key, digest: str) -> Sealing:
        """What is to be verified before `seal`.

        Raises:
            AlreadySealed, BadRequest, RoundClosed: it cannot be sealed.
        """
        self.hear(site)
        with self._refused.noted(site, key), self._desk.store.edge() as edge:
            run = member(edge, key.run, site)
            row = self._sealed(edge, site, key, digest) or self._announced(edge, site, key, digest)
        manifest = row.announcement.manifest
        return Sealing(
            site=site,
            key=key,
            manifest=manifest,
            blobs=self._desk.uploads,
            sealed=row.sealed,
            norm_limit=norm_limit(run.spec, manifest),
        )

    def verify(self, sealing: Sealing) -> None:
        """Verifies an upload, on any thread; the task of one that is not what it must be is declined: nobody waits.

        Raises:
            ChunksMissing: not all of it has arrived.
            NotFinite, DigestMismatch, NormTooLarge: it is not what was announced, or not what the run allows.
        """
        with self._refused.noted(sealing.site, sealing.key, declines=True):
            sealing.verify()

    def seal(self, sealing: Sealing) -> Countersigned:
        """Seals a verified upload, and answers its countersigned head; asked again, it answers the same.

        Raises:
            AlreadySealed: another upload was sealed in the meantime.
            RunEnded, RoundClosed: the phase closed in the meantime.
            BadAttestation: a later entry of the same ledger was attested in the meantime.
        """
        site, key, manifest = sealing.site, sealing.key, sealing.manifest
        with self._refused.noted(site, key), self._desk.store.edge() as edge:
            if row := self._sealed(edge, site, key, manifest.digest):
                return self._receipt(row)
            row = self._announced(edge, site, key, manifest.digest)
            _check_ledger(edge.heads, row.announcement.attestation)
            edge.uploads.seal(key, site)
            edge.set_task(key, site, "SEALED")
            detail = {"round": key.round, "phase": key.phase, "site": site, "bytes": manifest.size_bytes}
            edge.add_event(key.run, "update_sealed", detail, self._desk.clock())
        self._desk.presence.moved(key, self._desk.clock())
        return self._receipt(row)

    def commit(self, site: str, key: Key, digest: str) -> Countersigned:
        """Verifies and seals, right here; raises what `sealing`, `verify` and `seal` raise."""
        sealing = self.sealing(site, key, digest)
        self.verify(sealing)
        return self.seal(sealing)

    def head(self, site: str, population: str) -> Countersigned | None:
        """The newest head of the site's ledger of `population` that was announced with an update."""
        self.hear(site)
        with self._desk.store.edge() as edge:
            return edge.heads.newest(site, population)

    def status(self, site: str, key: Key) -> UploadStatus:
        """What there is of an upload, in whatever state its run is; may run on any thread.

        Raises:
            UnknownRun, NotMember: it is none of the site's.
        """
        with self._desk.store.edge() as edge:
            member(edge, key.run, site)
            row = edge.uploads.get(key, site)
        if row is None:
            return UploadStatus()
        manifest = row.announcement.manifest
        return UploadStatus(
            announced=True,
            sealed=row.sealed,
            digest=manifest.digest,
            missing=frozenset() if row.sealed else self.missing(manifest),
            head=self._receipt(row) if row.sealed else None,
        )

    def _receipt(self, row: UploadRow) -> Countersigned:
        return countersign(self._desk.key, row.announcement.attestation)

    def _sealed(self, edge: Edge, site: str, key: Key, digest: str) -> UploadRow | None:
        row = edge.uploads.get(key, site)
        if row is None or not row.sealed:
            return None
        if row.announcement.manifest.digest != digest:
            raise AlreadySealed(f"{row.announcement.manifest.digest} is sealed for this task, not {digest}")
        return row

    def _announced(self, edge: Edge, site: str, key: Key, digest: str) -> UploadRow:
        _unanswered(edge, key, site)
        row = edge.uploads.get(key, site)
        if row is None or row.announcement.manifest.digest != digest:
            raise BadRequest(f"{digest} was not announced for this task; BeginUpload comes first")
        return row


def _unanswered(edge: Edge, key: Key, site: str) -> TaskRow:
    """The site's open task; raises RoundClosed for one that was declined, by the site or for what it sent."""
    _, _, task = open_task(edge, key, site)
    if task.state == "DECLINED":
        raise RoundClosed(
            f"{site} has declined round {key.round}, phase {key.phase} ({task.detail}); ask NextTask for the next"
        )
    return task


def _check_ledger(heads: Heads, attestation: Attestation) -> None:
    """Holds an attestation against the key and the head that are on record for its site; raises BadAttestation."""
    site = attestation.site
    check_follows(attestation, heads.pinned(site), heads.newest(site, attestation.population))


def _check_same(sealed: Attestation, told: Attestation) -> None:
    """Raises BadAttestation where a sealed update comes again with another place in the ledger."""
    was, now = (sealed.ledger_sequence, sealed.ledger_head), (told.ledger_sequence, told.ledger_head)
    if now != was:
        raise BadAttestation(f"this update is sealed with ledger entry {was}, not {now}; resend the stored attestation")
