"""Backup, restore and migration by a process of the aggregator's own code, and what to tell a person about them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.processes.children import failure
from pipelines.processes.site_process import scratch


def run(verb: str, arguments: Sequence[str], database: str) -> dict[str, Any]:
    """What `services.aggregator.backups.maintenance VERB` answers.

    Raises:
        InvalidInput, RunFailed: what the process ended with.
    """
    with scratch(verb) as folder:
        log = folder / f"{verb}.log"
        with log.open("wb") as errors:
            command = [sys.executable, "-P", "-m", "services.aggregator.backups.maintenance", verb, *arguments]
            where = os.environ | {"DEERFIELD_DATABASE": database}
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, env=where, check=False)
        if done.returncode:
            raise failure(done.returncode, log)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def told_backup(done: Mapping[str, Any]) -> Iterator[str]:
    """Lines on a backup."""
    rows = done["rows"]
    yield f"wrote {done['file']}: {done['bytes']} bytes, the database as it was at {done['time']}"
    yield f"{rows['runs']} runs, {rows['heads']} ledgers' heads, {rows['events']} events, {done['blobs']} blobs"
    yield from _keys(done, "it holds no private key; keep the aggregator's --key apart")


def told_restore(done: Mapping[str, Any]) -> Iterator[str]:
    """Lines on a restore."""
    yield f"restored {done['file']}, of {done['time']}: {done['rows']['runs']} runs, {done['rows']['heads']} heads"
    for name, incarnation in done["incarnations"].items():
        yield f"{name} goes on as incarnation {incarnation}, with the phase that was open; its sites are charged anew"
    yield from _keys(done, "start the aggregator with the --key that it had")


def told_migrate(done: Mapping[str, Any]) -> Iterator[str]:
    """A line on a migration."""
    if done["migrations"]:
        yield f"migrated {done['where']} to revision {done['revision']}: {', '.join(done['migrations'])}"
    else:
        yield f"{done['where']} is of revision {done['revision']} already; nothing was changed"


def _keys(done: Mapping[str, Any], advice: str) -> Iterator[str]:
    keys = ", ".join(done["aggregator_keys"])
    yield advice + (f" (public key {keys})" if keys else "")
