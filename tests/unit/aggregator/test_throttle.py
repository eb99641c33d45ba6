import pytest

from deerfield.errors import InvalidInput, TooBusy
from services.aggregator.bounds import Bounds
from services.aggregator.rpc.throttle import Rates
from services.aggregator.settings import read_settings
from tests.fakes import Clock

NORTH, SOUTH = ("site", "north"), ("site", "south")


def taken(rates, caller=NORTH, call="/f/Heartbeat", most=1000):
    """How many calls get through at once."""
    for count in range(most):
        try:
            rates.take(caller, call)
        except TooBusy:
            return count
    return most


def test_a_burst_then_the_rate_then_a_pause_that_is_just_long_enough():
    clock = Clock()
    rates = Rates(Bounds(rate=10, burst=5), clock)
    assert taken(rates) == 5
    with pytest.raises(TooBusy, match="more than 5 calls of Heartbeat at once, and 10 a second") as caught:
        rates.take(NORTH, "/f/Heartbeat")
    clock.advance(caught.value.retry_s + 1e-6)
    assert taken(rates) == 1
    clock.advance(3600)
    assert taken(rates) == 5  # no more than a burst is saved up


def test_callers_and_calls_do_not_use_up_each_others_share():
    rates = Rates(Bounds(rate=10, burst=5), Clock())
    assert taken(rates) == 5
    assert taken(rates, SOUTH) == 5
    assert taken(rates, NORTH, "/f/NextTask") == 5


def test_a_clock_that_goes_back_gives_nothing():
    clock = Clock()
    rates = Rates(Bounds(rate=10, burst=5), clock)
    assert taken(rates) == 5
    clock.advance(-100)
    assert taken(rates) == 0


def test_memory_is_bounded_however_many_call():
    rates = Rates(Bounds(rate=10, burst=2), Clock(), size=100)
    for number in range(10_000):
        rates.take(("site", str(number)), "/f/Hello")
    assert len(rates) == 100


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        *[("uploads", each) for each in ("0", "many", "2.5")],
        *[("keepalive-s", each) for each in ("1e9", "1e-9", "nan")],  # gRPC counts milliseconds in 32 bits
        ("queue", "9999999"),
        ("rate", "0"),
    ],
)
def test_a_bound_that_is_none_is_refused_by_name(flag, value):
    with pytest.raises(InvalidInput, match=f"^{flag}: '{value}' is no"):
        read_settings([f"--{flag}", value], {})


def test_bounds_come_from_flags_and_from_the_environment():
    bounds = read_settings(["--uploads", "7", "--idle-s", "1.5"], {"DEERFIELD_CALLS_EACH": "9"}).bounds
    assert (bounds.uploads, bounds.idle_s, bounds.calls_each) == (7, 1.5, 9)
    assert bounds.queue == Bounds().queue
