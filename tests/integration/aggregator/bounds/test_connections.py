"""Connections that say nothing, are never finished or are gone end by themselves; each holds so many calls at once."""

import socket
import struct
from contextlib import contextmanager

import grpc
import pytest

from deerfield.wire import federation_pb2 as pb
from deerfield.wire.calls import downstream, unary
from deerfield.wire.channel import connect
from deerfield.wire.federation_pb2_grpc import RunsStub
from tests.fakes import run_spec
from tests.integration.aggregator.bounds.conftest import assert_served
from tests.integration.aggregator.security import Consortium

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, GOAWAY, HEADERS, DATA = 4, 7, 1, 0


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    """A header as HPACK has it without any table."""
    return b"\x00" + b"".join(bytes([len(text)]) + text.encode() for text in (name, value))


def call_headers(method, site="north"):
    found = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
        "deerfield-role": "site",
        "deerfield-site": site,
    }
    return b"".join(literal(*pair) for pair in found.items())


@contextmanager
def raw(address):
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        yield line


def read_until_closed(line):
    """What the other side says before it closes; fails after 10 s of silence."""
    said = b""
    try:
        while more := line.recv(65536):
            said += more
    except ConnectionResetError:
        pass
    return said


def test_a_connection_that_never_says_a_word_is_closed(bounded):
    server = bounded(handshake_s=0.5)
    with raw(server.ports.listening) as silent, raw(server.ports.listening) as half:
        half.sendall(PREFACE[:10])
        assert_served(server)
        read_until_closed(silent)
        read_until_closed(half)


def test_a_tls_handshake_that_is_never_finished_is_closed(bounded, tmp_path):
    server = bounded(gate=Consortium.found(tmp_path / "lungs").gate(), handshake_s=0.5)
    with raw(server.ports.listening) as line:
        line.sendall(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a hello
        read_until_closed(line)


def test_a_connection_without_calls_is_closed_with_a_word(bounded):
    server = bounded(unused_s=0.5, keepalive_s=60)
    with raw(server.ports.listening) as line:
        line.sendall(PREFACE + frame(SETTINGS))
        assert_served(server)
        assert frame(GOAWAY)[3:4] in read_until_closed(line)


def test_a_peer_that_is_gone_without_a_word_is_noticed_by_its_silence(bounded):
    server = bounded(keepalive_s=0.3, keepalive_timeout_s=0.3, unused_s=60)
    with raw(server.ports.listening) as line:  # which never answers a ping
        line.sendall(PREFACE + frame(SETTINGS))
        read_until_closed(line)
    assert_served(server)


def test_a_call_whose_message_never_comes_is_ended(bounded):
    server = bounded(request_s=0.5)
    with raw(server.ports.listening) as line:
        line.sendall(PREFACE + frame(SETTINGS))
        line.sendall(frame(HEADERS, 4, 1, call_headers("/deerfield.wire.v1.Federation/Hello")))
        line.sendall(frame(DATA, 0, 1, b"\x00\x00\x00\x00\x09half"))
        assert_served(server)
        said = b""
        while b"did not come within 0.5 s" not in said:
            more = line.recv(65536)
            assert more, said
            said += more


def test_connections_hold_no_more_calls_at_once_than_they_may(bounded):
    server = bounded(streams=2)
    run = server.runs.start(run_spec("north", "south"), "once")
    with connect(server.ports.listening, role="operator") as channel:
        watches = [downstream(RunsStub(channel).Watch, pb.WatchRequest(run=run), 20) for _ in range(2)]
        assert [next(each).kind for each in watches] == ["run_started"] * 2
        with pytest.raises(grpc.RpcError) as caught:  # it waits for room on its own side until its deadline
            RunsStub(channel).List(pb.ListRequest(), timeout=0.5)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        watches[0].close()
        assert unary(RunsStub(channel).List, pb.ListRequest(), 10).runs
        watches[1].close()
