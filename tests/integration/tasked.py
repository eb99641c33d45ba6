"""What a Job of the tests runs in the place of `services.client`: a task without a model, and what befalls it.

`python -m tests.integration.tasked task --work FOLDER`; the environment says what happens: DOES is check, charged or
release, where it raises FAULT, or waits for its end.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

from deerfield import errors
from deerfield.runspec import RunSpec
from services.client.lifetime import lifetime
from services.client.ondemand import job
from services.client.ondemand.folder import Request
from services.client.site import Workbench
from tests.chaos.site import Bench

FOR_EVER_S = 600


class Befallen(Bench):
    """Pulls towards the site's target; scores the models of a task that trains nothing."""

    scored = False

    def check(self, assignment, on_step):
        befall("check", on_step)

    def release(self, assignment, reservation, on_step):
        befall("release", on_step)
        self.scored = not assignment.task.epochs
        return super().release(assignment, reservation, on_step)

    def metrics(self):
        return {"accuracy": 0.75} if self.scored else {}


def befall(where, on_step):
    if os.environ.get("DOES") != where:
        return
    if name := os.environ.get("FAULT"):
        kind = getattr(errors, name, None) or {"MemoryError": MemoryError}[name]
        raise kind("patient 17 has no column 'label'")
    for step in range(FOR_EVER_S * 20):
        time.sleep(0.05)  # the work that ends land in; no test waits by it
        on_step(step + 1, FOR_EVER_S * 20)


def target(site: str, spec: RunSpec) -> dict[str, np.ndarray]:
    """What a site pulls towards."""
    draws = np.random.default_rng(len(site))
    return {name: draws.normal(size=shape).astype(np.float32) for name, shape in sorted(spec.adapter.items())}


def build(request: Request) -> Workbench:
    return Befallen(target(request.site, request.spec))


if __name__ == "__main__":
    with lifetime(None):
        try:
            job.work(Path(sys.argv[-1]), build)
        except errors.DeerfieldError as error:
            sys.exit(error.exit_code)
