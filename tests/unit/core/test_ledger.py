"""Laws of the chain and of what it adds up to, on ledgers in memory."""

import json
from collections.abc import Sequence
from dataclasses import replace
from math import inf, isclose

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deerfield import privacy
from deerfield.attestation import public_key
from deerfield.errors import AlreadySealed, BudgetExhausted, InvalidInput, PolicyRefused
from deerfield.filters import Charge, spent
from deerfield.ledger import charging
from deerfield.ledger.account import Account, extend, fold
from deerfield.ledger.audit import verify
from deerfield.ledger.chain import first_damage, lines_of, walk
from deerfield.ledger.details import Known, RunPlan, Terms
from deerfield.ledger.entry import GENESIS, KINDS, Entry, Head, line, parse, seal
from deerfield.ledger.forms import FORMS
from deerfield.ledger.statement import rows
from deerfield.types import Spend
from tests.ledgers import KEY, NONE_RUN, OTHER, RENYI, TERMS, UPDATE, key, plan

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2**60) | st.floats(0, inf) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ENTRIES = st.builds(
    Entry,
    sequence=st.integers(0, 2**40),
    time=st.floats(0, 1e12),
    kind=st.sampled_from(sorted(KINDS)),
    detail=st.dictionaries(st.text(max_size=5), JSON, max_size=4),
    previous=st.binary(min_size=32, max_size=32).map(bytes.hex),
)


class Chain:
    """A ledger in memory, written by the same rules as one on disk."""

    def __init__(self, terms: Terms = TERMS) -> None:
        first = Entry(
            sequence=0, time=0.0, kind="open", detail=charging.open_detail(terms, public_key(KEY)), previous=GENESIS
        )
        self.entries = [seal(first, KEY)]

    @property
    def account(self) -> Account:
        return fold(self.entries)

    @property
    def lines(self) -> list[bytes]:
        return [line(entry)[:-1] for entry in self.entries]

    def add(self, kind: str, detail: object, **changes: object) -> Entry:
        last = self.entries[-1]
        entry = Entry(sequence=last.sequence + 1, time=last.time + 1, kind=kind, detail=detail, previous=last.hash)
        self.entries.append(seal(replace(entry, **changes), KEY))
        return self.entries[-1]

    def run(self, asked: RunPlan) -> Entry:
        return self.add("run", charging.run_detail(self.account, asked))

    def task(self, *where: int, steps: int = 10, run: str = "r1") -> Entry:
        return self.add("task", charging.task_detail(self.account, key(*where, run=run), steps))

    def commit(self, entry: Entry, update: str = UPDATE) -> Entry:
        held = self.account.reservations[entry.sequence]
        return self.add("commit", charging.commit_detail(self.account, held, update))


def found(chain: Chain | Sequence[bytes]) -> list[str]:
    report = verify(chain.lines if isinstance(chain, Chain) else chain)
    return [f"{each.entry}: {each.what}" for each in report.findings]


@given(ENTRIES)
def test_an_entry_reads_back_as_it_was_written(entry: Entry) -> None:
    text = line(seal(entry, KEY))
    assert text.endswith(b"\n")
    assert text.count(b"\n") == 1
    assert line(parse(text[:-1])) == text


@given(ENTRIES, st.data())
def test_a_line_that_says_the_same_in_other_bytes_is_no_entry(entry: Entry, data: st.DataObject) -> None:
    text = line(seal(entry, KEY))[:-1]
    other = json.dumps(json.loads(text), indent=data.draw(st.sampled_from([None, 1]))).encode()
    with pytest.raises(ValueError, match=r"written as the ledger writes"):
        parse(other)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["task", "commit", "infinite"]), max_size=8))
def test_any_way_of_using_a_run_leaves_a_chain_without_findings(acts: list[str]) -> None:
    chain = Chain()
    chain.run(plan())
    for number, act in enumerate(acts):
        if act == "infinite":
            chain.add("infinite", charging.infinite_detail(f"reason {number}"))
        elif act == "task" and len(chain.account.reservations) < 3:
            chain.task(number)
        elif act == "commit" and (free := set(chain.account.reservations) - set(chain.account.commits)):
            chain.commit(chain.entries[min(free)])
    assert found(chain) == []
    assert len(list(rows(chain.entries))) == len(chain.entries)


@settings(deadline=None)
@given(st.integers(0, 6))
def test_a_fold_may_be_cut_anywhere(where: int) -> None:
    chain = small(RENYI)
    assert extend(fold(chain.entries[: where + 1]), chain.entries[where + 1 :]) == chain.account


def small(terms: Terms = TERMS) -> Chain:
    chain = Chain(terms)
    chain.run(plan())
    chain.commit(chain.task(0), UPDATE)
    chain.commit(chain.task(1), OTHER)
    chain.task(2)
    return chain


def test_entries_that_are_swapped_dropped_or_said_twice_are_found() -> None:
    good = small().lines
    assert found(good) == []
    assert found([*good[:2], *good[3:]])[0].startswith("2: ")
    assert found([*good[:3], good[2], *good[3:]])[0].startswith("3: ")
    assert found([good[0], good[2], good[1], *good[3:]])[0].startswith("1: ")
    assert found(good[1:])[0].startswith("0: ")
    assert found([]) == ["0: the ledger is empty; it begins with an open entry"]


def test_an_entry_that_another_key_signed_is_found() -> None:
    from tests.attesting import key_of

    chain = small()
    chain.entries[-1] = seal(chain.entries[-1], key_of("somebody else"))
    assert found(chain) == [
        f"{chain.entries[-1].sequence}: its signature is not by the key of the ledger's first entry"
    ]


def test_an_entry_that_its_own_site_wrote_anew_is_found() -> None:
    chain = small()
    chain.entries[3] = seal(replace(chain.entries[3], detail={"reservation": 2, "update": "ef" * 32}), KEY)
    assert found(chain) == ["4: it does not name the hash of entry 3 as the one before it"]


def test_time_that_runs_back_is_found() -> None:
    chain = small()
    last = chain.entries[-1]
    chain.add("infinite", charging.infinite_detail("x"), time=last.time - 1)
    assert ["before the time" in each for each in found(chain)] == [True]


@pytest.mark.parametrize(
    ("name", "factor"), [("epsilon", 1 - 1e-5), ("epsilon_after", 1 - 1e-5), ("epsilon_after", 1.1)]
)
def test_an_epsilon_that_its_site_signed_and_that_is_wrong_is_found(name: str, factor: float) -> None:
    chain = Chain()
    detail = dict(charging.run_detail(chain.account, plan()))
    detail[name] *= factor
    chain.add("run", detail)
    assert any(each.startswith("1: ") and name in each for each in found(chain))


def test_the_cost_of_a_run_is_computed_again_where_its_tasks_are_charged() -> None:
    chain = Chain(RENYI)
    detail = dict(charging.run_detail(chain.account, plan()))
    chain.add("run", {**detail, "epsilon": detail["epsilon"] * (1 - 1e-5)})
    assert [each[:32] for each in found(chain)] == ["1: epsilon of the run is written"]


@pytest.mark.parametrize(("terms", "factor"), [(RENYI, 1 - 1e-5), (TERMS, 0.5)])
def test_a_task_that_understates_the_population_is_found(terms: Terms, factor: float) -> None:
    chain = Chain(terms)
    chain.run(plan())
    detail = dict(charging.task_detail(chain.account, key(), 10))
    chain.add("task", {**detail, "epsilon_after": detail["epsilon_after"] * factor})
    assert [each[:19] for each in found(chain)] == ["2: epsilon_after is"]


def test_a_second_update_for_a_reservation_is_found() -> None:
    chain = Chain()
    chain.run(plan())
    task = chain.task(0)
    chain.commit(task)
    chain.add("commit", {"reservation": task.sequence, "update": OTHER})
    assert found(chain) == ["4: it is the second commit of reservation 2, after entry 3"]


def test_a_commit_and_a_task_without_what_they_stand_on_are_found() -> None:
    chain = Chain()
    chain.run(plan())
    detail = charging.task_detail(chain.account, key(), 10)
    chain.add("commit", {"reservation": 1, "update": UPDATE})
    chain.add("task", {**detail, "run": "r2"})
    chain.add("task", {**detail, "steps": 41})
    chain.add("task", {**detail, "attempt": 5})
    said = " ".join(found(chain))
    for what in (
        "2: entry 1, which it commits",
        "3: entry 1 is no reservation of run r2",
        "4: with it the run takes 41",
    ):
        assert what in said
    assert "5: it is written as attempt 5" in said


def test_more_than_the_terms_allow_is_found() -> None:
    chain = Chain(replace(TERMS, epsilon=0.01))
    rich = fold([seal(replace(chain.entries[0], detail=charging.open_detail(TERMS, public_key(KEY))), KEY)])
    chain.add("run", charging.run_detail(rich, plan()))
    assert any("above the 0.01 of its terms" in each for each in found(chain))


def test_a_missing_update_is_found() -> None:
    report = verify(small().lines, {UPDATE}.__contains__)
    assert [each.entry for each in report.findings] == [5]
    assert verify(small().lines, {UPDATE, OTHER}.__contains__).sound


def test_terms_that_break_a_promise_are_found() -> None:
    chain = small()
    for changes in ({"unit": "record"}, {"filter": "renyi", "order": 8.0}, {"population": "hearts"}):
        chain.add("terms", replace(TERMS, **changes).detail(public_key(KEY)))
    said = " ".join(found(chain))
    assert "one for ever" in said
    assert "changes the filter" in said
    assert "of population hearts" in said


def test_sum_charges_a_run_whole_before_its_first_task_and_never_again() -> None:
    chain = Chain()
    chain.run(plan())
    whole = privacy.epsilon(plan().spends, 1e-6)
    assert chain.account.epsilon == whole
    chain.task(0)
    chain.run(plan("r2"))
    assert isclose(chain.account.epsilon, 2 * whole)
    assert isclose(chain.account.delta, 2e-6)


def test_a_run_pays_for_what_it_releases_beside_its_schedule() -> None:
    extra = Spend(unit="patient", noise_multiplier=5.0, sample_rate=1.0, steps=3, clip=inf)
    with_extra = plan(extra=(extra,))
    for terms in (TERMS, RENYI):
        chain = Chain(terms)
        chain.run(with_extra)
        assert chain.account.epsilon > 0
        assert found(chain) == []
    assert with_extra.epsilon > plan().epsilon


def test_renyi_charges_each_task_its_steps_however_many_tasks_they_come_in() -> None:
    one, many = Chain(RENYI), Chain(RENYI)
    for chain in (one, many):
        chain.run(plan())
        assert chain.account.epsilon == 0
    one.task(0, steps=30)
    for round in range(3):
        many.task(round, steps=10)
    together = Charge(epsilon=0, delta=0, spends=(plan().spend(30),))
    assert isclose(many.account.epsilon, spent(RENYI.cap, [together]), rel_tol=1e-12)
    assert isclose(one.account.epsilon, many.account.epsilon, rel_tol=1e-12)


@pytest.mark.parametrize("terms", [TERMS, RENYI], ids=["sum", "renyi"])
def test_what_is_infinite_stays_infinite(terms: Terms) -> None:
    chain = Chain(terms)
    chain.run(plan())
    chain.add("infinite", charging.infinite_detail("metrics: clear"))
    chain.add("terms", replace(terms, epsilon=1e6).detail(public_key(KEY)))
    known = Known(head=Head(sequence=90, hash=OTHER), epsilon=1.0, delta=0.0)
    detail = charging.reconcile_detail(chain.account, "op", "restored", known, None)
    chain.add("reconcile", detail, sequence=91)
    assert chain.account.epsilon == inf
    assert chain.account.remaining == 0
    with pytest.raises(BudgetExhausted, match="infinite for good"):
        chain.run(plan("r2"))
    chain.run(plan("r3", infinite_allowed=True))
    chain.task(0, run="r3")
    assert all(row.epsilon == inf for row in list(rows(chain.entries))[2:])
    assert found(chain) == []


@pytest.mark.parametrize("terms", [TERMS, RENYI], ids=["sum", "renyi"])
def test_a_run_without_a_unit_needs_the_policy_and_is_infinite(terms: Terms) -> None:
    chain = Chain(terms)
    with pytest.raises(BudgetExhausted, match="infinite epsilon"):
        chain.run(NONE_RUN)
    chain.run(replace(NONE_RUN, infinite_allowed=True))
    assert chain.account.epsilon == inf
    public = Chain(replace(TERMS, unit="none", epsilon=inf))
    public.run(NONE_RUN)
    public.task(0, run="open")
    assert found(public) == found(chain) == []


def test_a_run_of_another_unit_is_refused() -> None:
    with pytest.raises(PolicyRefused, match="one unit for ever"):
        Chain().run(plan(unit="record"))


def test_the_budget_stops_before_the_run_that_would_exceed_it() -> None:
    cost = plan().epsilon
    chain = Chain(replace(TERMS, epsilon=2.5 * cost))
    chain.run(plan("a"))
    chain.run(plan("b"))
    with pytest.raises(BudgetExhausted, match="is left"):
        chain.run(plan("c"))
    assert isclose(chain.account.remaining, 0.5 * cost)


def test_the_delta_stops_a_run_too() -> None:
    chain = Chain()
    for number in range(10):
        chain.run(plan(f"r{number}", noise_multiplier=30.0))
    with pytest.raises(BudgetExhausted, match="delta is used up"):
        chain.run(plan("one more", noise_multiplier=30.0))


def test_renyi_stops_before_the_task_that_would_exceed_the_budget() -> None:
    one = spent(RENYI.cap, [Charge(epsilon=0, delta=0, spends=(plan().spend(10),))])
    chain = Chain(replace(RENYI, epsilon=one * 1.0001))
    chain.run(plan())
    chain.task(0)
    with pytest.raises(BudgetExhausted, match="does not fit population"):
        chain.task(1)
    assert chain.account.epsilon <= chain.account.terms.epsilon


def test_no_task_takes_a_step_beyond_its_run() -> None:
    chain = Chain()
    with pytest.raises(BudgetExhausted, match="was not reserved"):
        chain.task(0)
    chain.run(plan())
    chain.task(0, steps=35)
    with pytest.raises(BudgetExhausted, match="5 are left of the 40"):
        chain.task(1, steps=6)
    chain.task(1, steps=5)


def test_a_run_has_no_more_tasks_than_were_reserved_even_without_a_step() -> None:
    chain = Chain()
    chain.run(plan())
    for number in range(plan().tasks):
        chain.task(number, steps=0)
    with pytest.raises(BudgetExhausted, match=f"one task more than the {plan().tasks}"):
        chain.task(plan().tasks, steps=0)
    known = {**chain.entries[-1].detail, "round": 90}
    chain.add("task", known)
    assert any("and 4 were reserved" in each for each in found(chain))


def test_a_task_is_tried_again_only_on_a_spare_phase_and_only_its_last_try_is_sent() -> None:
    chain = Chain()
    chain.run(plan())
    first = chain.task(0)
    second = chain.task(0)
    assert second.detail["attempt"] == 1
    with pytest.raises(AlreadySealed, match="spare"):
        chain.task(0)
    with pytest.raises(AlreadySealed, match="reserved again by entry 3"):
        chain.commit(first)
    chain.commit(second)
    with pytest.raises(AlreadySealed, match="was answered"):
        chain.task(0)
    chain.task(1)
    with pytest.raises(AlreadySealed, match="spare"):
        chain.task(1)
    assert found(chain) == []


def test_terms_may_change_but_not_the_unit_population_or_a_filter_in_use() -> None:
    chain = Chain()
    assert charging.terms_detail(chain.account, TERMS) is None
    assert charging.terms_detail(chain.account, RENYI) is not None
    chain.run(plan())
    assert charging.terms_detail(chain.account, replace(TERMS, epsilon=4.0)) is not None
    for changes in ({"unit": "record"}, {"population": "x"}, {"filter": "renyi", "order": 8.0}):
        with pytest.raises(InvalidInput, match="'lungs'"):
            charging.terms_detail(chain.account, replace(TERMS, **changes))


def test_a_restored_ledger_is_charged_what_the_record_has_and_it_lacks() -> None:
    old = small()
    before = old.account.epsilon
    head = Head(sequence=30, hash=OTHER)
    known = Known(head=head, epsilon=before + 1.5, delta=3e-6)
    agreed = Known(head=old.account.head, epsilon=before, delta=1e-6)
    detail = charging.reconcile_detail(old.account, "op", "why", known, agreed)
    assert isclose(detail["epsilon"], 1.5)
    assert isclose(detail["delta"], 2e-6)
    entry = old.add("reconcile", detail, sequence=31)
    assert isclose(old.account.epsilon, before + 1.5)
    assert old.account.knows(head)
    assert entry.sequence > head.sequence
    assert found(old) == []
    with pytest.raises(InvalidInput, match="nothing to reconcile"):
        charging.reconcile_detail(old.account, "op", "again", Known(head=head, epsilon=9.0), None)


@pytest.mark.parametrize(
    ("known", "epsilon"),
    [
        (Known(), inf),
        (Known(head=Head(sequence=30, hash=OTHER)), inf),
        (Known(head=Head(sequence=2, hash=OTHER), epsilon=1.25, delta=0.0), 1.25),  # the chains have parted
    ],
)
def test_what_nobody_knows_about_a_restored_ledger_costs_all_there_can_be(known: Known, epsilon: float) -> None:
    assert charging.missing(small().account, known, None)[0] == epsilon


def test_what_a_restored_copy_has_spent_since_is_never_taken_for_what_the_record_has() -> None:
    chain = small()
    agreed = Known(head=chain.account.head, epsilon=chain.account.epsilon, delta=chain.account.delta)
    lost = Known(head=Head(sequence=30, hash=OTHER), epsilon=agreed.epsilon + 1.5, delta=agreed.delta + 1e-6)
    chain.run(plan("elsewhere"))  # under an aggregator that had lost its memory
    since = chain.account.epsilon - agreed.epsilon
    chain.add("reconcile", charging.reconcile_detail(chain.account, "op", "why", lost, agreed), sequence=31)
    assert chain.account.epsilon == pytest.approx(agreed.epsilon + since + 1.5)
    assert chain.account.delta == pytest.approx(agreed.delta + 2e-6)
    assert found(chain) == []


def test_a_head_that_the_chain_does_not_hold_is_not_agreed_on() -> None:
    account = small().account
    known = Known(head=Head(sequence=30, hash=OTHER), epsilon=5.0, delta=5e-6)
    foreign = Known(head=Head(sequence=1, hash=OTHER), epsilon=4.0, delta=1e-6)
    assert charging.missing(account, known, foreign) == charging.missing(account, known, None) == (5.0, 5e-6)


def test_the_delta_of_a_record_is_charged_too() -> None:
    chain = small()
    known = Known(head=Head(sequence=30, hash=OTHER), epsilon=chain.account.epsilon, delta=TERMS.delta - 1e-6)
    chain.add("reconcile", charging.reconcile_detail(chain.account, "op", "why", known, None), sequence=31)
    assert chain.account.epsilon < inf
    with pytest.raises(BudgetExhausted, match="delta is used up"):
        chain.run(plan("r2"))


@pytest.mark.parametrize("name", ["epsilon", "delta"])
def test_a_reconciliation_that_charges_too_little_is_found(name: str) -> None:
    chain = small()
    known = Known(head=Head(sequence=30, hash=OTHER), epsilon=5.0, delta=5e-6)
    detail = charging.reconcile_detail(chain.account, "op", "why", known, None)
    chain.add("reconcile", {**detail, name: detail[name] / 2}, sequence=31)
    assert any(f"it charges {name}" in each for each in found(chain))


def test_every_kind_of_entry_has_a_form_and_no_other_key() -> None:
    assert set(FORMS) == KINDS
    chain = Chain()
    chain.add("infinite", {"reason": "x", "epsilon": 0.0})
    assert found(chain) == ["1: a infinite entry and 'epsilon' do not go together"]


def test_the_table_says_what_happened() -> None:
    table = list(rows(small().entries))
    assert [row.kind for row in table] == ["open", "run", "task", "commit", "task", "commit", "task"]
    assert table[1].steps == 40
    assert (table[2].round, table[2].phase, table[2].steps, table[2].run) == (0, 0, 10, "r1")
    assert table[0].remaining == 8.0
    assert isclose(table[-1].epsilon + table[-1].remaining, 8.0)


def test_damage_is_found_in_order() -> None:
    lines = small().lines
    lines[3] = lines[3].replace(b"commit", b"Commit")
    entries, damage = first_damage(lines)
    assert len(entries) == 3
    assert damage is not None
    assert damage.entry == 3
    assert lines_of(b"\n".join(lines) + b"\n") == lines
    assert sum(entry is None for entry, _ in walk(lines)) == 1
