"""One run's dealings with the ledger of its population, task by task.

The order of every task is here: reserve before a record is read, store and commit the noised update, and only then hand
it over to be sent. Whatever is asked again, after any crash, is answered with the same bytes.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deerfield import durable, restoration
from deerfield.attestation import sign
from deerfield.certificates import utc_now
from deerfield.errors import InvalidInput, LedgerBehind
from deerfield.ledger.account import Reservation
from deerfield.ledger.details import RunPlan
from deerfield.ledger.entry import Head
from deerfield.link import Assignment
from deerfield.plan import schedule
from deerfield.record import encode
from deerfield.restoration import Trust
from deerfield.runspec import RunSpec
from deerfield.strategies import make
from deerfield.strategy import check_task
from deerfield.tensors import Tensors
from deerfield.types import Attestation, Countersigned, Spend, Update
from services.client.custody.agreed import Agreed
from services.client.custody.ledger_file import Ledger
from services.client.custody.vault import Vault
from services.client.policy import Policy, Population
from services.client.training import dp_metrics

FIRST = 1  # the incarnation of a run that was never restored

log = structlog.get_logger()


def run_plan(run: str, incarnation: int, spec: RunSpec, policy: Policy, population: Population) -> RunPlan:
    """Everything that the run may do to the population, calibrated as a whole before its first phase."""
    declares, privacy = make(spec).declares, spec.privacy
    extra = evaluations(spec, policy)
    spend = schedule(spec, declares, extra)
    return RunPlan(
        run=run,
        incarnation=incarnation,
        spec=spec.sha256,
        unit=privacy.unit,
        noise_multiplier=spend.noise_multiplier,
        sample_rate=spend.sample_rate,
        steps=spend.steps,
        clip=spend.clip,
        delta=privacy.delta,
        phases=declares.rounds * len(declares.phases),
        spare_phases=privacy.spare_phases,
        extra=extra,
        infinite_allowed=population.unprotected or population.unit == "none" or policy.metrics == "clear",
    )


def evaluations(spec: RunSpec, policy: Policy) -> tuple[Spend, ...]:
    """What the validation counts of a whole run cost, under `metrics: dp`."""
    if policy.metrics != "dp" or spec.privacy.unit == "none":
        return ()
    declares = make(spec).declares
    phases = ceil(declares.rounds * len(declares.phases) / policy.every(declares))
    times = phases + spec.privacy.spare_phases  # each may repeat a phase that was evaluated
    return (dp_metrics.spend(spec.privacy.unit, policy.dp_metrics.noise_multiplier, times=times),)


def record_path(state: Path, population: str) -> Path:
    """Where a site keeps the aggregator's record that its own ledger of the population did not hold."""
    return state / "records" / f"{population}.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAccount:
    """One run's dealings with one population: `site.Account`."""

    site: str
    key: Ed25519PrivateKey
    folder: Path  # the site's state
    vault: Vault
    in_the_clear: bool  # metrics leave without noise, which costs infinity
    spec: RunSpec
    ledger: Ledger
    plan: RunPlan
    trust: Trust | None = None  # whose word a new incarnation needs; None: nobody's, and there is none

    def check_head(self, record: Countersigned | None) -> None:
        """Holds the aggregator's record of this ledger against the ledger itself.

        Raises:
            LedgerBehind: the aggregator has seen an entry that is not in it.
            InvalidInput: the record is signed by another aggregator than the one this site knows.
        """
        if record is None:
            self._agreed.compare(None)
            return
        self._pin(record.aggregator_key)
        if not self.ledger.account.knows(Head(sequence=record.sequence, hash=record.head)):
            self._keep_record(record)
            raise LedgerBehind(
                f"the aggregator has seen entry {record.sequence} of the ledger of {record.population!r}, and this "
                f"ledger, which ends at {self.ledger.head.sequence}, does not hold it: an old copy was restored; put "
                "the newest copy back, or run `deerfield ledger reconcile`"
            )
        self._agreed.compare(record)

    def confirmed(self, receipt: Countersigned) -> None:
        """Keeps the aggregator's word on the head that an update was sealed with."""
        self._agreed.advance(receipt)

    @property
    def _agreed(self) -> Agreed:
        return Agreed(self.folder / "ledgers" / self.spec.population)

    def _keep_record(self, record: Countersigned) -> None:
        """Keeps what `deerfield ledger reconcile` will charge by; a site that cannot refuses all the same."""
        with suppress(OSError):
            durable.replaced(record_path(self.folder, record.population), encode(record))

    def _pin(self, key: str) -> None:
        path = self.folder / "aggregator.pub"
        if (known := durable.kept(path, key.encode()).decode()) != key:
            raise InvalidInput(
                f"the aggregator signs with key {key[:16]}..., this site knows {known[:16]}... ({path}); if its "
                "operator confirms the new key, remove that file and start the site again"
            )

    def stored(self, assignment: Assignment) -> Update | None:
        """The update that answers a task, exactly as it was committed; None if none was."""
        digest = self.ledger.committed(assignment.key)
        if digest is None:
            return None
        return self._update(assignment, self.vault.get(digest), digest)

    def reserve(self, assignment: Assignment) -> Reservation:
        """Charges the run, once, and the task, before a record is read; metrics in the clear cost infinity.

        Raises:
            PolicyRefused: the run has no such task.
            NotRestored: it is of an incarnation that no operator has signed for.
            BudgetExhausted: it does not fit; nothing was charged.
            AlreadySealed: the task was begun before, and there is no spare phase.
            LedgerUnwritable: the charge cannot be made to last.
        """
        check_task(make(self.spec).declares, assignment.task)
        self._check_incarnation(assignment)
        if self.in_the_clear:
            self.ledger.make_infinite("metrics: clear")
        self.ledger.reserve_run(self.plan)
        return self.ledger.reserve_task(assignment.key, self.spec.releases(assignment.task.epochs))

    def _check_incarnation(self, assignment: Assignment) -> None:
        """What the ledger was charged for once was signed for then: a certificate may have expired since."""
        run, incarnation = assignment.run, assignment.incarnation
        if incarnation > FIRST and (run, incarnation) not in self.ledger.account.runs:
            who = restoration.check(assignment.restoration, run, incarnation, self.trust, utc_now())
            log.warning("run goes on from a backup", run=run, incarnation=incarnation, operator=who)

    def commit(
        self, reservation: Reservation, assignment: Assignment, delta: Tensors, metrics: Mapping[str, float]
    ) -> Update:
        """Stores the noised update, binds it to its reservation, and answers what may now be sent."""
        self._keep_metrics(assignment, metrics)
        digest = self.vault.put(delta)
        self.ledger.commit(reservation, digest)
        return self._update(assignment, delta, digest)

    def _update(self, assignment: Assignment, delta: Tensors, digest: str) -> Update:
        task = assignment.task
        return Update(
            site=self.site,
            round=task.round,
            phase=task.phase,
            base=assignment.base,
            delta=delta,
            attestation=self._attest(assignment, digest),
            metrics=self._metrics(assignment),
        )

    def _attest(self, assignment: Assignment, digest: str) -> Attestation:
        account, key = self.ledger.account, assignment.key
        reservation = next(each for each in account.task(key) if each.sequence in account.commits)
        run = account.runs[key.run, key.incarnation]
        commit = account.commits[reservation.sequence]
        unsigned = Attestation(
            site=self.site,
            population=self.spec.population,
            run=key.run,
            incarnation=key.incarnation,
            round=key.round,
            phase=key.phase,
            update=digest,
            spend=reservation.spend,
            beside=run.plan.extra,
            accountant=run.plan.accountant,
            epsilon_before=run.epsilon_before,
            epsilon_after=reservation.epsilon_after,
            delta_after=account.delta_until(commit.sequence),
            ledger_sequence=commit.sequence,
            ledger_head=commit.hash,
            data_commitment=account.terms.commitment or "",
        )
        return sign(self.key, unsigned)

    def _keep_metrics(self, assignment: Assignment, metrics: Mapping[str, float]) -> None:
        if metrics:
            durable.kept(self._metrics_path(assignment), json.dumps(dict(metrics), sort_keys=True).encode())

    def _metrics(self, assignment: Assignment) -> Mapping[str, float]:
        path = self._metrics_path(assignment)
        found: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def _metrics_path(self, assignment: Assignment) -> Path:
        """Metrics are noised once, like the update: what is sent again is what was stored."""
        key, task = assignment.key, assignment.task
        name = f"{key.run}-{key.incarnation}-{task.round}-{task.phase}.json"
        return self.folder / "metrics" / name
