"""One run killed at one named point after another, each held against the same run undisturbed."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deerfield.runspec import RunSpec
from tests.chaos.checks import Found, found
from tests.chaos.consortium import Consortium, Course


@dataclass(frozen=True)
class Undisturbed:
    """A federation, what it leaves behind when nothing happens to it, and the points that it passes."""

    make: Callable[[str], Consortium]  # a new one of this name
    left: Found
    points: Counter[str]  # how often each was reached, in the order of their first time
    seconds: float  # from the first moment that its aggregator served

    def killed(self, name: str, *points: str, **how: object) -> Course:
        """A run of it that dies at each of `points`, one start after another, and leaves the same behind."""
        consortium = self.make(name)
        course = consortium.complete(*points, **how)
        left = found(consortium.folder, consortium.database, course.run, consortium.opened())
        if consortium.spec.privacy.unit == "none":
            course.same = left.digests == self.left.digests
            assert left == self.left
        assert (left.state, left.events, left.entries) == (self.left.state, self.left.events, self.left.entries)
        return course


def undisturbed(
    folder: Path,
    database: Callable[[Path], str],
    spec: RunSpec,
    bucket: Callable[[], str] = lambda: "",
    **options: object,
) -> Undisturbed:
    """Runs the federation once; `bucket` makes the place of the blobs of each run, if that is not its folder."""

    def make(name: str) -> Consortium:
        place = folder / name
        place.mkdir()
        return Consortium(place, database(place), spec, blobs=bucket(), **options)

    calm = make("undisturbed")
    course = calm.complete(f"record:{calm.folder / 'points'}")
    left = found(calm.folder, calm.database, course.run, calm.opened())
    assert left.state == "FINISHED"
    points = Counter((calm.folder / "points").read_text().split())
    return Undisturbed(make, left, points, course.served_s)
