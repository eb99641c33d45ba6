"""What a person sees of a run in a terminal."""

import re
from io import StringIO

import pytest
from rich.console import Console

from deerfield.exchange import Event
from pipelines.runs.report import Live

SITES = ("east", "north", "west")


def published(round: int, factors: str, epsilon: float | None) -> Event:
    return event("phase_published", round=round, factors=factors, epsilon=dict.fromkeys(SITES, epsilon))


def sealed(site: str) -> Event:
    return event("update_sealed", site=site)


def event(kind: str, **detail: object) -> Event:
    return Event(number=1, run="r", kind=kind, detail=detail, time=0.0)


def last_line(*events: Event) -> str:
    """The line that a terminal holds after `events`, without its colours."""
    console = Console(force_terminal=True, width=100, file=StringIO())
    with Live(console, phases=4, sites=len(SITES)) as screen:
        for each in (event("task_taken"), *events):
            screen.seen(each)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())
    return [line for line in re.split(r"[\r\n]+", plain) if line.strip()][-1]


def test_a_terminal_shows_the_phase_epsilon_and_the_time_left():
    line = last_line(published(0, "B", 1.25), published(0, "A", 2.5), published(1, "B", 3.75))
    assert "round 2 B" in line
    assert "epsilon so far 3.75" in line
    assert re.search(r"\d+ s left", line)


def test_epsilon_is_that_of_the_site_that_spent_most_and_infinite_where_nothing_is_promised():
    uneven = event("phase_published", round=0, factors="", epsilon={"east": 0.5, "north": 2.0, "west": 1.0})
    assert "epsilon so far 2," in last_line(uneven)
    assert "epsilon so far infinite" in last_line(published(0, "", None))


def test_the_bar_grows_with_each_phase():
    lines = [last_line(*[published(0, "B", 1.0)] * done) for done in (1, 2, 3)]
    ends = [line.index("╺") for line in lines]
    assert ends == [ends[0], ends[0] + 6, ends[0] + 12]  # a quarter of 24 columns for each of 4 phases


def test_a_terminal_counts_the_sites_that_have_answered_beside_epsilon_and_the_time_left():
    assert "2/3 sites" in last_line(sealed("east"), sealed("west"))
    line = last_line(*map(sealed, SITES), published(0, "B", 1.25), sealed("north"))
    assert "1/3 sites" in line
    assert "epsilon so far 1.25" in line
    assert re.search(r"\d+ s left", line)


@pytest.mark.parametrize("kind", ["declined", "lost", "left"])
def test_a_site_that_is_gone_is_named_above_the_line(kind):
    console = Console(force_terminal=True, width=100, file=StringIO())
    with Live(console, phases=4, sites=3) as screen:
        screen.seen(event(kind, site="north", detail="its process ended"))
    assert f"site north: {kind}: its process ended" in console.file.getvalue()
