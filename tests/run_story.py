"""A run with everything that can happen to one, as its aggregator tells it; and the documents made of it."""

from typing import Any

from deerfield.documents.evaluation import Evaluation
from deerfield.documents.partition_manifest import Manifest
from deerfield.documents.verdict import Verdict
from deerfield.exchange import Event
from deerfield.runspec import Federation, Privacy, RunSpec
from pipelines.report_page.found import Found, of
from pipelines.runs.result import Result
from tests.fakes import run_spec

SITES = ("charite", "karolinska", "st-anselm", "ucl")
RUN = "lung-notes-0123456789"
BEGAN = 1_750_000_000.0
LABELS = ("benign", "malignant", "unclear")
PRIVATE = Privacy(unit="patient", epsilon=8.0, delta=1e-5)
PHASES = (("B", 0, 0), ("A", 0, 1), ("B", 1, 0), ("A", 1, 1), ("B", 2, 0), ("A", 2, 1))
HEAD = "ab" * 32


def spec(*sites: str, privacy: Privacy = PRIVATE, lifetime: float | None = 10.0, rounds: int = 3) -> RunSpec:
    """A run of deer over `sites`."""
    made = run_spec(*sites, rounds=rounds, privacy=privacy, name="lung notes")
    federation = Federation(sites=sites, quorum=2, lifetime_epsilon=lifetime)
    return made.model_copy(update={"federation": federation, "labels": LABELS})


def event(number: int, at: float, kind: str, **detail: Any) -> Event:
    return Event(number=number, run=RUN, kind=kind, detail=detail, time=BEGAN + at)


def story(sites: tuple[str, ...] = SITES, phases: int = len(PHASES), ending: str = "run_finished") -> list[Event]:
    """The events: one site declines in the second phase, one is late in the third, one is lost in the fifth."""
    told: list[tuple[float, str, dict[str, Any]]] = [(0.0, "run_started", {"name": "lung notes"})]
    clock, out = 4.0, {1: "declined", 2: "late", 4: "lost"}
    for place, (factors, round_, phase) in enumerate(PHASES[:phases]):
        where, missing = {"round": round_, "phase": phase}, sites[-1] if place in out else None
        for order, site in enumerate(sites):
            told.append((clock + 0.4 * order, "task_taken", {**where, "site": site}))
            if site != missing:
                told.append((clock + 60 + 7 * order, "update_sealed", {**where, "site": site, "bytes": 40_000}))
        if out.get(place) == "declined":
            why = {"reason": "ENGINE_FAULT", "detail": "the GPU is gone"}
            told.append((clock + 5, "declined", {**where, "site": missing, **why}))
        if out.get(place) == "lost":
            told.append((clock + 70, "lost", {**where, "site": missing, "silent_s": 61.0}))
        came = [site for site in sites if site != missing]
        clock += 60 + 7 * len(sites)
        told.append((clock, "phase_published", _published(where, factors, came, sites, place)))
        scores = {"accuracy": 0.6 + 0.05 * place, "f1": 0.55 + 0.06 * place, "auc": 0.8 + 0.03 * place}
        told.append((clock + 1, "evaluated", {**where, "metrics": scores}))
        clock += 2
    told += _end(ending, clock)
    ordered = sorted(told, key=lambda each: each[0])
    return [event(number, at, kind, **detail) for number, (at, kind, detail) in enumerate(ordered, start=1)]


def _published(
    where: dict[str, int], factors: str, came: list[str], sites: tuple[str, ...], place: int
) -> dict[str, Any]:
    spent = {site: 3.0 + 0.9 * place - (0.5 if site == sites[-1] and place else 0.0) for site in sites}
    terms = {"unit": "patient", "noise_multiplier": 0.9, "sample_rate": 0.125, "steps": 8, "clip": 1.0}
    return {
        **where,
        "factors": factors,
        "sites": came,
        "digest": f"{place:02d}" * 32,
        "personal": {},
        "deviation": 4.4e-8 + 1e-10 * place,
        "bytes_up": 40_000 * len(came),
        "bytes_down": 81_000 * len(came),
        "seconds": 60 + 7.0 * len(sites),
        "epsilon": spent,
        "epsilon_total": {site: 7.9 + 0.7 * (index % 4) for index, site in enumerate(sites) if site in came},
        "spends": dict.fromkeys(came, terms),
        "metrics": {site: {"accuracy": 0.7 + 0.02 * index} for index, site in enumerate(came)},
        "last": place == len(PHASES) - 1,
    }


def _end(ending: str, clock: float) -> list[tuple[float, str, dict[str, Any]]]:
    if ending == "run_finished":
        registered = (clock, "registered", {"name": "lung notes", "version": "4"})
        return [registered, (clock + 1, "run_finished", {"digest": HEAD})]
    if not ending:
        return []
    begun = (clock, "task_taken", {"round": 9, "phase": 0, "site": SITES[0]})
    return [begun, (clock + 30, ending, {"reason": "1 of 4 updates came, the quorum is 2"})]


def estimate(value: float, width: float = 0.05) -> dict[str, float]:
    return {"value": value, "low": value - width, "high": value + width}


METRICS = ("accuracy", "macro_auc", "macro_f1", "macro_precision", "macro_recall")


def evaluation(sites: tuple[str, ...] = SITES) -> dict[str, Any]:
    """evaluation.json."""
    scores = {label: {"precision": 0.8, "recall": 0.7, "f1": 0.75, "examples": 120} for label in LABELS}
    curve = {"fpr": [0.0, 0.1, 0.3, 1.0], "tpr": [0.0, 0.6, 0.9, 1.0], "auc": 0.89}
    bins = [
        {"low": place / 5, "high": (place + 1) / 5, "examples": 72 * bool(place), "confidence": None, "accuracy": None}
        | ({"confidence": place / 5 + 0.1, "accuracy": place / 5 + 0.05} if place else {})
        for place in range(5)
    ]
    models = {
        name: {
            "version": version,
            "digest": digest,
            "metrics": {"macro_f1": estimate(value), "accuracy": estimate(value + 0.02), "ece": estimate(0.06, 0.01)},
            "per_class": scores,
            "confusion": [[100, 12, 8], [6, 104, 10], [20, 9, 91]],
            "roc": dict.fromkeys(LABELS, curve),
            "calibration": {"ece": 0.06, "bins": bins},
        }
        for name, version, digest, value in (
            ("candidate", "4", HEAD, 0.84), ("champion", "3", "cd" * 32, 0.81), ("base", "", "ef" * 32, 0.33),
        )
    }  # fmt: skip
    return {
        "schema": 1,
        "test_set": {"source": "lung-notes-test.csv", "sha256": "12" * 32, "examples": 360},
        "labels": list(LABELS),
        "primary": "macro_f1",
        "models": models,
        "differences": {
            "champion": {"macro_f1": estimate(0.03, 0.02), "accuracy": estimate(0.02, 0.03)},
            "base": {"macro_f1": estimate(0.51, 0.06), "accuracy": estimate(0.5, 0.06)},
        },
        "by_site": {
            site: {"examples": 90, "metrics": {name: estimate(0.78 + 0.03 * index, 0.08) for name in METRICS}}
            for index, site in enumerate(sites)
        },
        "reported": {},
        "leakage": {"checked": 1440, "overlap": 0},
        "confidence": 0.95,
        "resamples": 2000,
    }


def verdict(*, passed: bool = False) -> dict[str, Any]:
    """verdict.json: worse than the champion at one site, unless it has passed."""
    return {
        "schema": 1,
        "passed": passed,
        "model": "lung notes",
        "version": "4",
        "expected_champion": "3",
        "rules": [
            {"rule": "minimum", "passed": True, "value": 0.84, "limit": 0.7, "detail": "macro_f1"},
            {"rule": "no_regression", "passed": True, "value": 0.01, "limit": -0.02, "detail": "low end"},
            {"rule": "worst_site", "passed": passed, "value": 0.78, "limit": 0.8, "detail": "macro_f1 at charite"},
            {"rule": "epsilon", "passed": True, "value": 7.5, "limit": 8.0, "detail": "highest at charite"},
            {"rule": "privacy_proof", "passed": True, "value": None, "limit": None, "detail": "6 phases verified"},
        ],
        "evidence": {"code": "0.1.0", "test_set_sha256": "12" * 32, "epsilon": {"charite": 7.5, "ucl": 7.0}},
        "time": BEGAN + 900,
    }  # fmt: skip


def manifest(sites: tuple[str, ...] = SITES) -> dict[str, Any]:
    """manifest.json of a simulation."""
    counts = [(61, 33, 12), (20, 80, 4), (44, 45, 40), (90, 10, 9)]
    parts = {
        site: {
            "units": 60 + index,
            "examples": sum(counts[index % 4]),
            "labels": dict(zip(LABELS, counts[index % 4], strict=True)),
            "sha256": f"{index:04d}" * 16,
            "part": f"s3://parts/{site}.csv",
        }
        for index, site in enumerate(sites)
    }
    return {
        "schema": 1,
        "kind": "simulation",
        "source": "lung-notes.csv",
        "seed": 7,
        "labels": list(LABELS),
        "sites": parts,
        "test": {"examples": 360, "sha256": "12" * 32, "part": "s3://parts/test.csv"},
        "example_sha256": "s3://parts/examples.txt",
    }


def found(
    events: list[Event] | None = None, run: RunSpec | None = None, documents: bool = True, **changes: Any
) -> Found:
    """What a report is made of: the whole story with every document, unless something else is said."""
    told, run = story() if events is None else events, run or spec(*SITES)
    result = Result(run, RUN)
    for each in told:
        result.seen(each)
    result.seconds = told[-1].time - BEGAN if told else 0.0
    given: dict[str, Any] = {"run": RUN, "spec": run, "result": of(result)}
    if documents:
        sites = run.federation.sites
        given["evaluation"] = Evaluation.model_validate(evaluation(sites))
        given["verdict"] = Verdict.model_validate(verdict())
        given["manifest"] = Manifest.model_validate(manifest(sites))
    return Found(**{**given, **changes})
