"""A site's proof that its network lets it reach nobody else, against real ports."""

import socket

import pytest
import structlog

from deerfield.errors import InvalidInput
from deerfield.wire import proxy
from deerfield.wire.handshake import Way
from services.client.egress import prove, targets

WAY = Way(address="agg.example.org:8600", proxy=proxy.parse("http://proxy.example.org:3128"))


def port_of(listening: socket.socket) -> str:
    return f"127.0.0.1:{listening.getsockname()[1]}"


def test_whoever_can_be_reached_is_named():
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        open_ports = sorted(map(port_of, (one, two)))
        found = targets(f"{open_ports[0]}, no-such-host.invalid:443,{open_ports[1]}", WAY)
        with pytest.raises(InvalidInput, match=f"^--egress-proof: {', '.join(open_ports)} can be reached from here"):
            prove(found)


def test_nobody_is_reached_where_ports_are_shut_or_do_not_answer():
    with socket.socket() as shut, socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as first:
        shut.bind(("127.0.0.1", 0))
        first.connect(full.getsockname())  # its queue is full: what comes now is dropped, as by a firewall
        with socket.socket() as second, structlog.testing.capture_logs() as lines:
            second.setblocking(False)
            second.connect_ex(full.getsockname())
            prove(targets(f"{port_of(shut)},{port_of(full)},no-such-host.invalid:443", WAY), timeout_s=0.3)
    assert [line["event"] for line in lines] == ["egress is closed"]


def test_without_a_target_nothing_is_proven_or_said():
    with structlog.testing.capture_logs() as lines:
        prove(targets("", WAY))
    assert lines == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("example.org:443,agg.example.org:8600", r"agg\.example\.org:8600 is the aggregator, which a site must reach"),
        ("AGG.example.org:8600", "is the aggregator"),
        ("proxy.example.org:3128", "is the proxy to the aggregator"),
        ("https://example.org", "'https://example.org' is no host:port; write HOST:PORT without https://"),
        ("example.org", "'example.org' is no host:port"),
    ],
)
def test_a_target_that_cannot_be_one_is_refused(text, message):
    with pytest.raises(InvalidInput, match=f"^--egress-proof: .*{message}"):
        targets(text, WAY)
