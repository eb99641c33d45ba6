"""`make chaos`: the link cut by a proxy in the middle of uploads, and away for longer than a site may be silent."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.checks import found
from tests.chaos.consortium import Consortium
from tests.chaos.edges import undisturbed
from tests.chaos.site import spec
from tests.cut_link import CutLink

MIB = 1 << 20
LARGE = {"q.lora_A.weight": (2, 2 * MIB), "q.lora_B.weight": (4, 2), "head.weight": (3, 4), "head.bias": (3,)}
SIZE = 4 * sum((2 * 2 * MIB, 4 * 2, 3 * 4, 3))  # of the update, in bytes
FRAMES = 1.01  # of HTTP/2 and protobuf, around chunks
CALLS = 100_000  # bytes of all calls that carry no chunks


@dataclass
class Cuts:
    """Cuts a link after every `every` bytes more, for long enough that the aggregator has stored what it had."""

    link: CutLink
    uploads: Path
    every: int
    times: int
    since: float | None = None
    passed: list[int] = field(default_factory=list)  # bytes over the link at each cut
    stored: list[int] = field(default_factory=list)  # bytes that the aggregator had by then

    def __call__(self, _: Consortium) -> None:
        if len(self.stored) == self.times:
            return
        if self.since is None:
            goal = self.every + (self.passed[-1] if self.passed else 0)
            if len(self.passed) == len(self.stored):
                self.link.cut_at(goal)
                self.passed.append(goal)
            if self.link.up >= goal or self.link.up >= self.passed[-1]:
                self.since = time.monotonic()
        elif time.monotonic() - self.since > 1.5:
            self.stored.append(sum(path.stat().st_size for path in self.uploads.glob("*/*") if not path.suffix))
            self.since = None
            self.link.restore()


def test_no_chunk_that_was_acknowledged_is_sent_again(tmp_path, database, note):
    asked = spec("north", strategy="fedavg", rounds=1, adapter=LARGE)
    consortium, points = Consortium(tmp_path, database(tmp_path), asked), tmp_path / "points"
    with CutLink(consortium.aggregator.address) as link:
        consortium.reach = link.address
        cuts = Cuts(link, tmp_path / "blobs/uploads", 5 * MIB, 3)
        course = consortium.complete(f"record:{points}", meddle=cuts)
        up = link.up
    found(tmp_path, consortium.database, course.run)
    chunks = [path for path in cuts.uploads.glob("*/*") if not path.suffix]
    assert points.read_text().split().count("uploads:after_rename") == len(chunks)
    # what passed before a cut and was not stored was in flight, and that alone comes again
    befores = zip([0, *cuts.passed], [0, *cuts.stored], strict=True)
    in_flight = [
        passed - stored - (was_passed - was_stored)
        for passed, stored, (was_passed, was_stored) in zip(cuts.passed, cuts.stored, befores, strict=False)
    ]
    note.say(
        f"update of {SIZE} bytes, {up} over a link cut {len(cuts.passed)} times: {cuts.stored} were stored at the cuts "
        f"and came once, {in_flight} were in flight and came again"
    )
    assert sorted(cuts.stored) == cuts.stored
    assert cuts.stored[-1] >= MIB
    assert up <= SIZE * FRAMES + sum(in_flight) + CALLS
    note("link cut in mid upload", course)


def test_a_link_that_is_away_for_longer_than_silence_may_last_changes_no_bit(tmp_path, database, note):
    asked, lost = spec("north", "south", rounds=1), ["--lost-after", "1"]
    calm = undisturbed(tmp_path, database, asked, flags=lost)
    consortium = calm.make("cut")
    consortium.job = {"slow_s": 1.0, "beats": True}
    state = {"cuts": 0, "until": 0.0}
    with CutLink(consortium.aggregator.address) as link:
        consortium.reach = link.address

        def meddle(_: Consortium) -> None:
            """Cuts the link in each phase once both sites are at work, for three times what they may be silent."""
            taken = sum(event.kind == "task_taken" for event in consortium.course.events)
            if not state["until"] and taken >= 2 * (state["cuts"] + 1):
                link.cut()
                state["cuts"], state["until"] = state["cuts"] + 1, time.monotonic() + 3.0
            elif state["until"] and time.monotonic() > state["until"]:
                state["until"] = 0.0
                link.restore()

        course = consortium.complete(meddle=meddle)
    left = found(consortium.folder, consortium.database, course.run)
    assert left == calm.left
    assert state["cuts"] == 2
    assert {event.detail["site"] for event in course.events if event.kind == "lost"} == {"north", "south"}
    course.same = True
    note("link away", course)
