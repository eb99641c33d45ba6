"""A site that waits as if it trained, and adds its number: `ADDRESS RUN NUMBER FOLDER SECONDS`."""

import sys
import time
from pathlib import Path

import numpy as np

from deerfield.errors import RunEnded
from deerfield.types import Update
from deerfield.wire.backoff import Backoff
from deerfield.wire.channel import connect
from deerfield.wire.client import SiteClient
from tests.attesting import attested
from tests.fakes import spend


def main() -> None:
    """Answers tasks until the run ends."""
    address, run, number, folder, seconds = sys.argv[1:]
    name = f"site-{number}"
    with connect(address, role="site", site=name) as channel:
        link = SiteClient(channel, run=run, backoff=Backoff(last_s=5.0))
        link.hello()
        try:
            while True:
                if (assignment := link.next_task()) is None:
                    continue
                task = assignment.task
                (Path(folder) / f"round-{task.round + 1}-{name}").touch()
                time.sleep(float(seconds))
                delta = {each: np.zeros_like(array) for each, array in task.start.items()}
                delta["head.weight"] = delta["head.weight"] + np.float32(number)
                plain = Update(site=name, round=task.round, phase=task.phase, base=assignment.base, delta=delta)
                link.send(assignment, attested(assignment, plain, spend(assignment, 0.0)))
        except RunEnded:
            return


if __name__ == "__main__":
    main()
