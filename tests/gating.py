"""Evidence that keeps every rule, to be changed in one place."""

from dataclasses import replace
from typing import Any

from deerfield.gate import Evaluation, Evidence, Figure, Held, Lineage, Proven, Rules, Scored, Spent

RUN_FILE, BASE, NORTH, SOUTH, HUB, EVALUATED = ("a" * 64, "b" * 64, "c" * 64, "d" * 64, "e" * 64, "9" * 64)
RULES = Rules.model_validate({"minimum": 0.7, "epsilon": {"run": 3, "lifetime": 8}})


def figure(low: float, value: float | None = None, high: float | None = None) -> Figure:
    """An interval; without more, a point."""
    return Figure(value=low if value is None else value, low=low, high=low if high is None else high)


def scored(version: str, **changes: Any) -> Scored:
    """A model with a macro-F1 of 0.75 to 0.85 that is worst at the north, with 0.7."""
    plain = Scored(
        version=version,
        digest=f"digest {version}",
        metrics={"macro_f1": figure(0.75, 0.8, 0.85)},
        sites={"north": {"macro_f1": 0.7}, "south": {"macro_f1": 0.9}},
        ece=0.05,
    )
    return replace(plain, **changes)


def evaluation(**changes: Any) -> Evaluation:
    """Version 2 against the champion, version 1: no difference, within 0.01."""
    plain = Evaluation(
        candidate=scored("2"),
        champion=scored("1"),
        differences={"macro_f1": figure(-0.01, 0.0, 0.01)},
        confidence=0.95,
        checked=100,
        overlap=0,
        test_sha256=HUB,
        examples=200,
        sha256=EVALUATED,
        kept=EVALUATED,
    )
    return replace(plain, **changes)


def spent(**changes: Any) -> Spent:
    """Two sites that spent 2 in the run and 4 and 5 so far."""
    plain = Spent(
        unit="record",
        sites=("north", "south"),
        epsilon={"north": 2.0, "south": 2.0},
        lifetime={"north": 4.0, "south": 5.0},
        delta=1e-6,
        lifetime_delta={"north": 2e-6, "south": 3e-6},
        run_limit=3.0,
        lifetime_limit=None,
    )
    return replace(plain, **changes)


def proven(**changes: Any) -> Proven:
    """Four phases of run 2, which end in version 2."""
    return replace(Proven(verified=True, phases=4, runs=("run-2",), digest="digest 2", findings=()), **changes)


def lineage(**changes: Any) -> Lineage:
    """All that a simulation has to say."""
    plain = Lineage(
        spec_sha256=RUN_FILE,
        run_file=RUN_FILE,
        code="0.4.0",
        base_digest=BASE,
        trained_on=BASE,
        commitments={"north": NORTH, "south": SOUTH},
        kind="simulation",
        hub={"north": HUB, "south": HUB, "test": HUB},
        test_examples=200,
        manifests={"given": HUB, "kept": HUB, "lineage.json": HUB},
    )
    return replace(plain, **changes)


def evidence(**changes: Any) -> Evidence:
    """Version 2 of `lungs`, which keeps every rule of `RULES` against its champion, version 1."""
    plain = Evidence(
        model="lungs",
        candidate=Held(version="2", run="run-2", digest="digest 2"),
        champion=Held(version="1", run="run-1", digest="digest 1"),
        evaluation=evaluation(),
        spent=spent(),
        proof=proven(),
        lineage=lineage(),
        time=1_000_000.0,
    )
    return replace(plain, **changes)
