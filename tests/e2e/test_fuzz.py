"""Ten thousand sequences of calls that nobody should make; and the codec under atheris, where it is installed."""

import importlib.util
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings

from fuzz.targets import TARGETS
from tests.fuzzing import PLAYED, SEQUENCES, target
from tests.unit.wire.test_codec_fuzz import GOOD

ROOT = Path(__file__).resolve().parents[2]
COUNT = 10_000
SETTLED = COUNT // 10  # from here on memory must not grow with the sequences
GROWTH_BYTES = 64 << 20  # caches, SQLite's pages and a fragmented heap; 9,000 sequences bring several GB
CODEC_RUNS = 200_000

MANY = settings(PLAYED, max_examples=COUNT)


def test_ten_thousand_sequences(tmp_path):
    with target(tmp_path) as aggregator:
        numbers, resident = count(1), {}

        @MANY
        @given(sequence=SEQUENCES)
        def play(sequence):
            aggregator.play(sequence)
            aggregator.still_serves()
            number = next(numbers)
            if number % SETTLED == 0:
                aggregator.finishes_a_run()
                resident[number] = aggregator.resident

        began = time.monotonic()
        play()
        seconds = time.monotonic() - began
        calls, played = sum(aggregator.answers.values()), next(numbers) - 1
        print(f"\n{played} sequences, {calls} calls, {seconds:.0f} s, 2 x {played} valid calls between them")
        for answer, times in aggregator.answers.most_common():
            print(f"{times:8} {answer}")
        print("MiB resident after sequences:", {n: round(size / 2**20, 1) for n, size in resident.items()})
        assert played >= COUNT
        assert len(aggregator.answers) > 15, aggregator.answers
        assert max(resident.values()) - resident[SETTLED] < GROWTH_BYTES


def test_the_codec_under_a_coverage_guided_fuzzer(tmp_path):
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed (pip install atheris); hypothesis has tried the codec in the unit tests")
    for number, (decode, _) in enumerate(TARGETS):
        if decode in GOOD:  # from bytes that are no message at all it takes long to one
            (tmp_path / str(number)).write_bytes(bytes([number]) + GOOD[decode].SerializeToString())
    done = subprocess.run(
        [sys.executable, "-m", "fuzz.codec", f"-runs={CODEC_RUNS}", "-max_len=4096", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    print(done.stderr.strip().splitlines()[-1])
