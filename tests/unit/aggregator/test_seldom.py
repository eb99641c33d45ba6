from services.aggregator.rpc.seldom import LINES, PERIOD_S, Seldom
from tests.fakes import Clock


def test_a_few_lines_of_each_kind_are_written_and_what_is_left_out_is_counted_on_the_next_one():
    clock = Clock()
    seldom = Seldom(clock)
    assert [seldom.due("a") for _ in range(1000)] == [0] * LINES + [None] * (1000 - LINES)
    assert seldom.due("b") == 0
    clock.advance(PERIOD_S)
    assert [seldom.due("a") for _ in range(2)] == [1000 - LINES, 0]


def test_memory_is_bounded_however_many_kinds_there_are():
    seldom = Seldom(Clock(), size=100)
    for number in range(10_000):
        assert seldom.due(number) == 0
    assert len(seldom) == 100
