"""The ledger as a file: what a crash, a full disk, a second process, a clock or a flipped byte can do to it."""

import os
import subprocess
import sys
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from math import inf
from pathlib import Path

import pytest

from deerfield.errors import (
    AlreadySealed,
    BudgetExhausted,
    InvalidInput,
    LedgerBusy,
    LedgerDamaged,
    LedgerUnwritable,
    PolicyRefused,
)
from deerfield.ledger.audit import verify
from deerfield.ledger.chain import lines_of
from deerfield.ledger.details import Known
from deerfield.ledger.entry import Head
from services.client.custody import append
from services.client.custody.ledger_file import NAME, Ledger, account_of, check_local, read
from tests.attesting import key_of
from tests.ledgers import NONE_RUN, OTHER, RENYI, TERMS, UPDATE, eight, key, lines, opened, plan

FLIPS = (0x01, 0x20, 0x80)


def test_verify_names_the_entry_of_any_byte_that_is_flipped(tmp_path: Path) -> None:
    whole = eight(tmp_path)
    assert whole.count(b"\n") == 8
    assert verify(lines_of(whole)).sound
    ends = list(accumulate(len(line) + 1 for line in whole.split(b"\n")[:-1]))
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= FLIPS[place % 3]
        findings = verify(lines_of(bytes(broken))).findings
        assert findings, f"byte {place}"
        assert findings[0].entry == bisect_right(ends, place), f"byte {place}: {findings}"


def test_a_ledger_with_any_byte_flipped_is_not_opened(tmp_path: Path) -> None:
    whole = eight(tmp_path)
    ends = list(accumulate(len(line) + 1 for line in whole.split(b"\n")[:-1]))
    path = tmp_path / NAME
    for place in [*range(0, len(whole), 7), *(end - 1 for end in ends)]:
        broken = bytearray(whole)
        broken[place] ^= 0x01
        path.write_bytes(broken)
        with pytest.raises(LedgerDamaged, match=rf"entry {bisect_right(ends, place)}\b"):
            opened(tmp_path)
        assert path.read_bytes() == broken


def test_a_torn_last_line_is_cut_wherever_it_was_torn_and_the_chain_goes_on(tmp_path: Path) -> None:
    whole = eight(tmp_path)
    start = whole[:-1].rfind(b"\n") + 1
    path = tmp_path / NAME
    for place in range(start, len(whole)):
        path.write_bytes(whole[:place])
        with opened(tmp_path) as ledger:
            assert ledger.head.sequence == (7 if place == len(whole) - 1 else 6)  # only its newline is missing
            ledger.make_infinite("afterwards")
        assert verify(lines(tmp_path)).sound
        assert path.read_bytes()[: len(whole[:start])] == whole[:start]


def test_a_torn_first_line_is_begun_anew(tmp_path: Path) -> None:
    whole = eight(tmp_path)
    (tmp_path / NAME).write_bytes(whole[:100])
    with opened(tmp_path) as ledger:
        assert ledger.head.sequence == 0


def test_a_tail_of_zeros_after_a_power_cut_is_cut(tmp_path: Path) -> None:
    whole = eight(tmp_path)
    (tmp_path / NAME).write_bytes(whole + bytes(300))
    with opened(tmp_path) as ledger:
        assert ledger.head.sequence == 7


def test_a_ledger_is_continued_where_it_was_closed(tmp_path: Path) -> None:
    eight(tmp_path)
    with opened(tmp_path) as ledger:
        before = ledger.account
        assert ledger.committed(key(0)) == OTHER
        assert ledger.committed(key(2)) is None
    assert account_of(read(tmp_path), tmp_path) == before
    assert os.stat(tmp_path / NAME).st_mode & 0o777 == 0o600


def test_asking_twice_writes_once(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        first = ledger.reserve_run(plan())
        task = ledger.reserve_task(key(), 10)
        commit, spent = ledger.commit(task, UPDATE), ledger.make_infinite("x")
        size = (tmp_path / NAME).stat().st_size
        assert ledger.reserve_run(plan()) == first
        assert ledger.commit(task, UPDATE) == commit
        assert ledger.make_infinite("x") == spent
        assert (tmp_path / NAME).stat().st_size == size
    with opened(tmp_path) as ledger:
        assert ledger.reserve_run(plan()) == first
        assert ledger.commit(task, UPDATE) == commit
        assert ledger.make_infinite("x") == spent
        assert (tmp_path / NAME).stat().st_size == size


def test_whatever_is_refused_leaves_no_byte(tmp_path: Path) -> None:
    with opened(tmp_path, replace(TERMS, epsilon=plan().epsilon * 1.5)) as ledger:
        ledger.reserve_run(plan())
        task = ledger.reserve_task(key(), 10)
        ledger.commit(task, UPDATE)
        refused: list[tuple[type[Exception], Callable[[], object]]] = [
            (BudgetExhausted, lambda: ledger.reserve_run(plan("r2"))),
            (BudgetExhausted, lambda: ledger.reserve_run(NONE_RUN)),
            (PolicyRefused, lambda: ledger.reserve_run(plan(noise_multiplier=1.9))),
            (PolicyRefused, lambda: ledger.reserve_run(plan("r2", unit="record"))),
            (BudgetExhausted, lambda: ledger.reserve_task(key(1), 31)),
            (BudgetExhausted, lambda: ledger.reserve_task(key(1, run="r9"), 1)),
            (AlreadySealed, lambda: ledger.reserve_task(key(), 10)),
            (AlreadySealed, lambda: ledger.commit(task, OTHER)),
            (InvalidInput, lambda: ledger.commit(replace(task, sequence=1), UPDATE)),
            (InvalidInput, lambda: ledger.commit(replace(task, sequence=99), "no digest")),
        ]
        size, head = (tmp_path / NAME).stat().st_size, ledger.head
        for error, ask in refused:
            with pytest.raises(error):
                ask()
        assert (tmp_path / NAME).stat().st_size == size
        assert ledger.head == head


def test_another_incarnation_of_a_run_is_charged_anew(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.reserve_run(plan())
        ledger.reserve_run(plan(incarnation=1))
        assert ledger.account.epsilon == 2 * plan().epsilon


def test_a_ledger_has_one_owner_at_a_time(tmp_path: Path) -> None:
    script = """if True:
        import sys
        from pathlib import Path
        from deerfield.errors import LedgerBusy
        from tests.ledgers import opened
        try:
            opened(Path(sys.argv[1]))
        except LedgerBusy as busy:
            print(busy)
            sys.exit(7)"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    with opened(tmp_path) as ledger:
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 7, second.stderr
        assert "open in another process" in second.stdout
        with pytest.raises(LedgerBusy):
            opened(tmp_path)
        ledger.make_infinite("still works")
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


def test_a_clock_that_goes_back_stops_the_ledger_and_writes_nothing(tmp_path: Path) -> None:
    times = iter([100.0, 200.0, 199.5, 150.0])
    with opened(tmp_path, clock=lambda: next(times)) as ledger:
        ledger.reserve_run(plan())
        assert ledger.make_infinite("corrected by half a second").time == 200.0
        with pytest.raises(LedgerUnwritable, match="50 s behind entry 2"):
            ledger.reserve_task(key(), 1)
    assert len(lines(tmp_path)) == 3
    with pytest.raises(LedgerUnwritable, match="set the clock right"):
        opened(tmp_path, clock=lambda: 10.0)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LedgerUnwritable, match="nothing is trained"):
        opened(tmp_path / "file" / "ledger")


def test_a_ledger_is_a_file_and_no_device(tmp_path: Path) -> None:
    (tmp_path / NAME).symlink_to("/dev/full")
    with pytest.raises(LedgerUnwritable, match="no ordinary file"):
        opened(tmp_path)


def test_a_disk_that_fills_up_in_the_middle_of_an_entry_leaves_the_chain_whole(tmp_path: Path) -> None:
    script = """if True:
        import resource, sys
        from pathlib import Path
        from deerfield.errors import LedgerUnwritable
        from tests.ledgers import NAME, opened, plan
        folder, endless = Path(sys.argv[1]), resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, endless))
        try:
            opened(folder)
        except LedgerUnwritable as full:
            print(full)
        assert (folder / NAME).stat().st_size == 0
        resource.setrlimit(resource.RLIMIT_FSIZE, (endless, endless))
        with opened(folder) as ledger:
            size = (folder / NAME).stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, endless))
            try:
                ledger.reserve_run(plan())
            except LedgerUnwritable as full:
                print(full)
            assert (folder / NAME).stat().st_size == size
            assert not ledger.account.runs
            resource.setrlimit(resource.RLIMIT_FSIZE, (endless, endless))
            ledger.reserve_run(plan())"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("make room on its disk") == 2
    assert verify(lines(tmp_path)).sound
    assert len(lines(tmp_path)) == 2


def test_after_an_fsync_that_failed_nothing_more_is_written(tmp_path: Path) -> None:
    ours: list[Ledger] = []

    def lose_the_disk(point: str) -> None:
        if point == "run:before_fsync":
            os.close(ours[0]._file._handle)

    with opened(tmp_path, on_durable=lose_the_disk) as ledger:
        ours.append(ledger)
        with pytest.raises(LedgerUnwritable):
            ledger.reserve_run(plan())
        assert not ledger.account.runs
        with pytest.raises(LedgerUnwritable, match="start the site again"):
            ledger.make_infinite("x")
        ledger._file._handle = os.open("/dev/null", os.O_RDONLY)
    with opened(tmp_path) as ledger:
        assert ledger.account.epsilon > 0  # it may have been written: then it counts


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "fuse.sshfs"])
def test_a_network_file_system_is_refused_before_anything_is_made(tmp_path: Path, kind: str) -> None:
    table = tmp_path / "mounts"
    table.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {tmp_path}/far\\040away {kind} rw 0 0\n")
    check_local(tmp_path / "near", table)
    with pytest.raises(LedgerUnwritable, match=r"storage class of its volume"):
        check_local(tmp_path / "far away" / "ledger", table)
    check_local(tmp_path, tmp_path / "no such table")


def test_another_unit_population_or_key_is_refused_and_other_terms_are_written(tmp_path: Path) -> None:
    eight(tmp_path)
    for changes in ({"unit": "record"}, {"population": "hearts"}, {"filter": "renyi", "order": 8.0}):
        with pytest.raises(InvalidInput, match="'lungs'"):
            opened(tmp_path, replace(TERMS, **changes))
    with pytest.raises(InvalidInput, match=r"restore the site\.key"):
        Ledger.open(tmp_path, key_of("beta"), TERMS)
    assert len(lines(tmp_path)) == 8
    with opened(tmp_path, replace(TERMS, epsilon=3.0)) as ledger:
        assert ledger.account.terms.epsilon == 3.0
    with opened(tmp_path, replace(TERMS, epsilon=3.0)):
        assert len(lines(tmp_path)) == 9
    assert verify(lines(tmp_path)).sound


def test_a_restored_ledger_is_reconciled_and_its_numbers_are_new(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.reserve_run(plan())
        old = (tmp_path / NAME).read_bytes()
        ledger.commit(ledger.reserve_task(key(), 10), UPDATE)
        ledger.reserve_run(plan("r2"))
        head, spent = ledger.head, ledger.account.epsilon
    (tmp_path / NAME).write_bytes(old)
    with opened(tmp_path) as ledger:
        assert not ledger.account.knows(head)
        known = Known(head=head, epsilon=spent, delta=2e-6)
        entry = ledger.reconcile(operator="ops", reason="restored from a copy", known=known, agreed=None)
        assert entry.sequence == head.sequence + 1
        assert ledger.account.knows(head)
        assert ledger.account.epsilon >= spent
        assert ledger.reserve_run(plan("r3")).sequence == entry.sequence + 1
        with pytest.raises(InvalidInput, match="nothing to reconcile"):
            ledger.reconcile(operator="ops", reason="twice", known=known, agreed=None)
    with opened(tmp_path) as ledger:
        assert ledger.account.knows(head)
    assert verify(lines(tmp_path)).sound


@pytest.mark.parametrize("terms", [TERMS, RENYI], ids=["sum", "renyi"])
def test_infinite_is_for_ever(tmp_path: Path, terms: object) -> None:
    eight(tmp_path, terms)
    for _ in range(2):
        with opened(tmp_path, terms) as ledger:
            assert ledger.account.epsilon == inf
            with pytest.raises(BudgetExhausted, match="infinite for good"):
                ledger.reserve_run(plan("r2"))


def test_a_ledger_that_is_not_there_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="name the folder"):
        read(tmp_path)


def test_a_head_that_was_never_in_the_chain_is_not_known(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        assert ledger.account.knows(ledger.head)
        assert not ledger.account.knows(Head(sequence=0, hash=OTHER))
        assert not ledger.account.knows(Head(sequence=5, hash=ledger.head.hash))


def test_a_line_ends_where_its_brace_does() -> None:
    assert append._end(b'{"a":1}') == 7
    assert append._end(b'{"a":1}x') == 7
    assert append._end(b'{"a":1') is None
