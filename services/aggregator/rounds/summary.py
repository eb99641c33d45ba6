"""What is told about a phase that has closed: its numbers, or why it failed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isfinite

from deerfield.exchange import Key
from deerfield.types import Spend
from services.aggregator.rounds.phase import Closed, Closing
from services.aggregator.sql.records import TaskRow


def phase_summary(closing: Closing, closed: Closed, fetched: int, seconds: float) -> Mapping[str, object]:
    """The detail of phase_published; null stands for an infinite epsilon and a clip that clips nothing.

    `fetched`: bytes of start tensors that the sites did not have from their last task.
    """
    opening = closed.next
    return {
        "round": closing.key.round,
        "phase": closing.key.phase,
        "factors": closing.tasks[0].factors,
        "sites": [row.site for row in closing.sealed],
        "digest": opening.state.shared.digest,
        "personal": {site: manifest.digest for site, manifest in opening.state.personal.items()},
        "deviation": closed.deviation,
        "bytes_up": sum(row.announcement.manifest.size_bytes for row in closing.sealed),
        "bytes_down": fetched,
        "seconds": round(seconds, 3),
        "epsilon": {site: _told(value) for site, value in closed.epsilon.items()},
        "epsilon_total": {row.site: _told(row.announcement.attestation.epsilon_after) for row in closing.sealed},
        "spends": {row.site: _terms(row.announcement.attestation.spend) for row in closing.sealed},
        "metrics": {row.site: dict(row.announcement.metrics) for row in closing.sealed if row.announcement.metrics},
        "last": not opening.tasks,
    }


def _terms(spend: Spend) -> Mapping[str, object]:
    return {**asdict(spend), "clip": _told(spend.clip)}


def _told(value: float) -> float | None:
    return value if isfinite(value) else None


def failure_reason(key: Key, tasks: Sequence[TaskRow], quorum: int, deadline_s: float) -> str:
    """Names who is missing, and why."""
    came = [task for task in tasks if task.state == "SEALED"]
    missing = "; ".join(f"{task.site} {_fate(task)}" for task in tasks if task.state != "SEALED")
    return (
        f"round {key.round}, phase {key.phase}: {len(came)} of {len(tasks)} updates came, the quorum is {quorum} "
        f"(deadline {deadline_s:g} s after the last progress): {missing}"
    )


def _fate(task: TaskRow) -> str:
    if task.state == "DECLINED":
        return f"declined ({task.detail})"
    if task.away:
        return {"LEFT": "left", "LOST": "is lost"}[task.away] + f" ({task.detail})"
    return "took the task and did not answer" if task.state == "TAKEN" else "never took the task"
