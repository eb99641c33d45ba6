"""The proof of what a run has cost: every signature of its ledgers' mirror, their order, and every epsilon again.

It trusts the mathematics of signatures and of accounting. Whose keys they are it cannot know by itself: whoever has the
aggregator's public key, or the sites', names them. What is not known costs infinity.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from deerfield.attestation import check_receipt
from deerfield.attested import SHOWN, check_attestation, check_follows
from deerfield.budget import ROUNDING, charged, check_account, check_spend
from deerfield.errors import InvalidInput, Refusal
from deerfield.mirror import FIRST, Mirror, Sealed, parse, verify
from deerfield.privacy import epsilon
from deerfield.runspec import DELTA_LIMIT, RunSpec
from deerfield.strategies import make
from deerfield.strategy import Declaration
from deerfield.types import Attestation, Countersigned

EVERYWHERE = ""  # a finding that is about no one site


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a mirror proves; `epsilon` and `total` are by site, infinite where something about it is not known."""

    verified: bool  # whether nothing was found; a run without privacy may be verified, at an infinite epsilon
    epsilon: Mapping[str, float]  # of this run alone, at its delta
    findings: tuple[str, ...]  # one sentence each
    total: Mapping[str, float] = field(default_factory=dict)  # of the site's population over all runs, as attested
    notes: tuple[str, ...] = ()  # what is as it should be, and nobody should overlook


def prove(
    mirrors: Sequence[Mapping[str, Any]],
    spec: RunSpec,
    *,
    aggregator_key: str | None = None,
    site_keys: Mapping[str, str] | None = None,
) -> Proof:
    """Verifies the parsed objects of a run's mirror, in any order, against each other and against the run.

    `aggregator_key` and `site_keys`, in hex, are those that must have signed, where they are known from elsewhere; else
    each is the one that signed first. Another one after it is a finding, unless it is that of a site that is not named,
    and the aggregator vouches in the mirror that an operator pinned it.
    """
    books = _Books(spec, make(spec).declares, aggregator_key, dict(site_keys or {}))
    records = books.records(mirrors)
    books.check_schedule(records)
    for record in records:
        books.check_phase(record)
    for sealed in books.sealed.values():
        books.check_totals(sealed)
    return books.proof(records)


@dataclass
class _Books:
    spec: RunSpec
    declares: Declaration
    aggregator_key: str | None
    site_keys: dict[str, str]  # pinned so far
    named: frozenset[str] = field(init=False)  # the sites whose keys are known from elsewhere
    findings: dict[tuple[str, str], None] = field(default_factory=dict)  # (site, sentence), in order, each once
    heads: dict[str, Countersigned] = field(default_factory=dict)  # the newest, by site
    hashes: set[tuple[str, str]] = field(default_factory=set)  # (site, head)
    sealed: dict[str, list[Attestation]] = field(default_factory=lambda: defaultdict(list))
    repinned: dict[str, int] = field(default_factory=dict)  # by site, how many of the steps to another key are taken
    changes: list[str] = field(default_factory=list)  # a sentence for each key that took another's place

    def __post_init__(self) -> None:
        self.named = frozenset(self.site_keys)

    def find(self, site: str, sentence: str) -> None:
        self.findings[site, sentence] = None

    def tried(self, site: str, where: str, check: Callable[[], object]) -> bool:
        """Whether a check holds; what it raises is a finding."""
        try:
            check()
        except (Refusal, InvalidInput) as error:
            self.find(site, f"{where}: {error}")
            return False
        return True

    def records(self, mirrors: Sequence[Mapping[str, Any]]) -> list[Mirror]:
        """The phases that are what the aggregator signed, each once, in the order in which they were published."""
        found: dict[tuple[int, int, int], Mirror] = {}
        run = None
        for number, document in enumerate(mirrors, 1):
            try:
                record = parse(document)
            except InvalidInput as error:
                self.find(EVERYWHERE, f"object {number} of the mirror: {error}")
                continue
            where, key = _where(record), record.key
            run = run or key.run
            if key.run != run:
                self.find(EVERYWHERE, f"{where}: it is of run {key.run}, others are of {run}")
            elif record.spec != self.spec.sha256:
                self.find(EVERYWHERE, f"{where}: it is of another run file, sha256 {record.spec[:SHOWN]}...")
            elif (place := (key.incarnation, key.round, key.phase)) in found and found[place] != record:
                self.find(EVERYWHERE, f"{where}: there are two that differ")
            elif self._is_vouched_for(record, where):
                found[place] = record
        return [found[place] for place in sorted(found)]

    def _is_vouched_for(self, record: Mirror, where: str) -> bool:
        if not self.tried(EVERYWHERE, where, lambda: verify(record)):
            return False
        self.aggregator_key = self.aggregator_key or record.aggregator_key
        if record.aggregator_key != self.aggregator_key:
            self.find(
                EVERYWHERE,
                f"{where}: signed by the aggregator's key {record.aggregator_key[:SHOWN]}..., expected is "
                f"{self.aggregator_key[:SHOWN]}...",
            )
            return False
        return True

    def check_schedule(self, records: Sequence[Mirror]) -> None:
        """Each phase of the run is there, and none beyond; after a restore later phases are of the new incarnation."""
        due = [(round_, phase) for round_ in range(self.declares.rounds) for phase in range(len(self.declares.phases))]
        newest = {(record.key.round, record.key.phase): record.key.incarnation for record in records}
        for round_, phase in due:
            if (round_, phase) not in newest:
                self.find(EVERYWHERE, f"round {round_}, phase {phase}: no record of it that holds is in the mirror")
        for round_, phase in sorted(newest.keys() - set(due)):
            self.find(EVERYWHERE, f"round {round_}, phase {phase}: the run has no such phase")
        order = [newest[place] for place in due if place in newest]
        if order != sorted(order):
            self.find(EVERYWHERE, "a phase is of an earlier incarnation of the run than one before it")

    def check_phase(self, record: Mirror) -> None:
        """Holds the updates of a phase against what the run allows, and against those before."""
        where, sites = _where(record), self.spec.federation.sites
        came, took = [each.attestation.site for each in record.sealed], {each.site: each.epochs for each in record.took}
        for stranger in sorted({*came, *took} - set(sites)):
            self.find(EVERYWHERE, f"{where}: {stranger} is none of the run's sites")
        for twice in sorted({site for site in came if came.count(site) > 1}):
            self.find(twice, f"{where}: {twice} has two updates")
        for site in came:
            if took.get(site) != self.declares.epochs:
                self.find(
                    site, f"{where}: {site} took its task for {took.get(site)} epochs, not {self.declares.epochs}"
                )
        quorum = self.spec.federation.quorum or len(sites)
        if len(came) < quorum and self.spec.privacy.unit != "site":
            missing = ", ".join(sorted(set(sites) - set(came)))
            self.find(EVERYWHERE, f"{where}: {len(came)} updates, the quorum is {quorum}; missing: {missing}")
        for each in record.sealed:
            if self._holds(record, each, f"{where}, site {each.attestation.site}"):
                self.sealed[each.attestation.site].append(each.attestation)

    def _holds(self, record: Mirror, sealed: Sealed, where: str) -> bool:
        found, site = sealed.attestation, sealed.attestation.site

        def is_signed() -> None:
            check_attestation(found, site, self.spec.population, record.key, found.update)
            check_receipt(found, sealed.head)

        def is_allowed() -> None:
            check_spend(self.spec, self.declares, self.declares.epochs, found.spend, found.beside)
            check_account(self.spec, found)

        if not self.tried(site, where, is_signed):
            return False
        if sealed.head.aggregator_key != self.aggregator_key:
            self.find(site, f"{where}: its head is countersigned by another key than the aggregator's")
        if (site, found.ledger_head) in self.hashes:
            self.find(site, f"{where}: ledger entry {found.ledger_sequence} was attested before; the head is replayed")
            return False
        self.site_keys.setdefault(site, found.public_key)
        if self._is_repinned(record, site, found.public_key):
            told = f"{self.site_keys[site][:SHOWN]}..., from {where} on with {found.public_key[:SHOWN]}..."
            self.changes.append(f"site {site} signed with key {told}, which an operator has pinned (site_repinned)")
            self.site_keys[site] = found.public_key
        pinned = self.site_keys[site]
        if not self.tried(site, where, lambda: check_follows(found, pinned, self.heads.get(site))):
            return False
        self.hashes.add((site, found.ledger_head))
        self.heads[site] = sealed.head
        return self.tried(site, where, is_allowed)

    def _is_repinned(self, record: Mirror, site: str, key: str) -> bool:
        """Whether the aggregator vouches that operators made `key` the site's, step by step from the one before."""
        steps = [each for each in record.repinned if each.site == site]
        now, used = self.site_keys[site], self.repinned.get(site, 0)
        if key == now or site in self.named:
            return False
        for number, step in enumerate(steps[used:], used + 1):
            if step.before == now:
                now = step.public_key
                if now == key:
                    self.repinned[site] = number
                    return True
        return False

    def check_totals(self, sealed: Sequence[Attestation]) -> None:
        """The epsilon that a ledger came to is at least that of all that it was charged for in this run."""
        for incarnation in sorted({each.incarnation for each in sealed}):
            mine = [each for each in sealed if each.incarnation == incarnation]
            last = mine[-1]
            spends = [*(each.spend for each in mine), *last.beside]
            # under the filter `renyi` no delta is used up, and what it comes to is at the policy's own delta
            sums = last.delta_after > 0
            least = epsilon(spends, self.spec.privacy.delta if sums else DELTA_LIMIT)
            told = (
                last.epsilon_after
                if last.epsilon_after == inf or not sums
                else last.epsilon_after - last.epsilon_before
            )
            if told < least - ROUNDING * max(least, last.epsilon_after):
                self.find(
                    last.site,
                    f"site {last.site}: its updates of this run cost epsilon {least:.6g}, its ledger was charged "
                    f"{told:.6g} for them",
                )

    def proof(self, records: Sequence[Mirror]) -> Proof:
        """What all of that comes to."""
        flawed = {site for site, _ in self.findings}
        known = {site: not flawed & {site, EVERYWHERE} for site in self.spec.federation.sites}
        costs = self._costs(records)
        return Proof(
            verified=not self.findings,
            epsilon={site: costs[site] if known[site] else inf for site in known},
            findings=tuple(sentence for _, sentence in self.findings),
            total={site: head.epsilon_after if known.get(site) else inf for site, head in sorted(self.heads.items())},
            notes=tuple(self._notes(costs)),
        )

    def _costs(self, records: Sequence[Mirror]) -> Mapping[str, float]:
        """The epsilon of each site as the aggregator counts it: of every task that was taken, sealed or not."""
        newest = max((record.key.incarnation for record in records), default=0)
        current = [record for record in records if record.key.incarnation == newest]
        taken = [(taker.site, taker.epochs) for record in current for taker in record.took]
        restores = max((record.restores for record in current), default=0)
        spends = charged(self.spec, self.declares, self.sealed, taken, restores)
        takers = {taker.site for record in records for taker in record.took}
        unknown = {site: inf if site in takers else 0.0 for site in self.spec.federation.sites}
        return {**unknown, **{site: epsilon(each, self.spec.privacy.delta) for site, each in spends.items()}}

    def _notes(self, costs: Mapping[str, float]) -> Iterator[str]:
        yield from self.changes
        if self.spec.privacy.unit == "none":
            yield "the run's privacy unit is none: nothing is promised, and its epsilon is infinite at every site"
        for site in self.spec.federation.sites:
            if costs[site] == inf and site not in self.sealed:
                yield f"site {site} took tasks and sealed no update that holds: its noise is not known"


def _where(record: Mirror) -> str:
    again = "" if record.key.incarnation == FIRST else f" of incarnation {record.key.incarnation}"
    return f"round {record.key.round}, phase {record.key.phase}{again}"
