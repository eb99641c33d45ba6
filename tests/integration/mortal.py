"""A process that kills itself where it is told to: `POINT`, or `POINT#2` for the second time that it is reached."""

import os
import signal
from collections.abc import Callable

from deerfield.wire.client import SiteClient


def killing(point: str) -> Callable[[str], None]:
    """What is told every point that is reached; it does not return from the one that is `point`."""
    name, _, times = point.partition("#")
    left = int(times or 1)

    def reach(reached: str) -> None:
        nonlocal left
        left -= reached == name
        if reached == name and left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return reach


class Mortal(SiteClient):
    """A real client that dies before or after it has delivered an update."""

    reach = staticmethod(lambda point: None)

    def send(self, assignment, update):
        self.reach("send")
        receipt = super().send(assignment, update)
        self.reach("sent")
        return receipt
