"""The end of an aggregator that is told to stop while sites are in the middle of something."""

import json
import signal
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deerfield.errors import Unreachable
from deerfield.exchange import announce
from deerfield.manifest import pieces
from deerfield.strategies import make
from deerfield.wire import codec
from deerfield.wire import federation_pb2 as pb
from deerfield.wire.calls import unary
from deerfield.wire.channel import connect
from deerfield.wire.checks import sha256_names
from deerfield.wire.federation_pb2_grpc import FederationStub
from services.aggregator.assembly import assemble_aggregator
from tests.fakes import TeachingSite, adapter, run_spec
from tests.integration.aggregator.conftest import open_aggregator, served
from tests.integration.aggregator.processes import command, running
from tests.integration.federation import wait_for

S = 5.0
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Upload:
    """An update on its way: the first chunk is sent at once, the others when they are let."""

    def __init__(self, aggregator, run: str, stack: ExitStack) -> None:
        channel = stack.enter_context(connect(aggregator.listening, role="site", site="north"))
        self.stub, self.aggregator = FederationStub(channel), aggregator
        north = stack.enter_context(aggregator.site("north", run))
        assignment = north.link.next_task()
        self.update = north.update(assignment)
        announcement = announce(self.update)
        self.message = codec.encode_announcement(assignment.key, announcement)
        missing = frozenset(sha256_names(unary(self.stub.BeginUpload, self.message, S).missing))
        self.chunks = [codec.encode_chunk(*each) for each in pieces(self.update.delta, announcement.manifest, missing)]
        assert len(self.chunks) == len(missing) > 1
        self.go_on = threading.Event()
        stack.callback(self.go_on.set)
        pool = stack.enter_context(ThreadPoolExecutor(1))
        stack.callback(self.go_on.set)
        self.put = pool.submit(lambda: self.stub.PutChunks(self._sent(), timeout=60))
        wait_for(lambda: len(self.status(self.stub).missing) == len(self.chunks) - 1, 20)

    def _sent(self):
        yield self.chunks[0]
        self.go_on.wait(60)
        yield from self.chunks[1:]

    def status(self, stub) -> pb.UploadStatusReply:
        return unary(stub.UploadStatus, pb.UploadStatusRequest(key=self.message.key), S)

    def commit(self) -> pb.CommitReply:
        return unary(self.stub.Commit, pb.CommitRequest(key=self.message.key, digest=self.message.manifest.digest), S)


def health(aggregator) -> int:
    with grpc.insecure_channel(aggregator.health) as channel:
        return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=S).status


@pytest.fixture
def stack():
    with ExitStack() as found:
        yield found


@pytest.fixture
def started(stack, tmp_path):
    """An aggregator with a run in it."""

    def start(*flags):
        aggregator = stack.enter_context(running(tmp_path, *flags))
        runs = stack.enter_context(aggregator.runs())
        return aggregator, runs.start(run_spec("north", "south", rounds=1), "once")

    return start


def test_an_upload_under_way_is_sealed_and_nobody_new_is_let_in(started, stack):
    aggregator, run = started()
    upload = Upload(aggregator, run, stack)
    assert health(aggregator) == SERVING
    aggregator.process.terminate()
    wait_for(lambda: health(aggregator) == NOT_SERVING, 10)
    for call, message in (
        (upload.stub.BeginUpload, upload.message),
        (upload.stub.NextTask, pb.NextTaskRequest(run=run, wait_ms=20_000)),
    ):
        with pytest.raises(Unreachable, match="this aggregator is ending"):
            unary(call, message, S)
    with pytest.raises(grpc.RpcError) as refused:
        upload.stub.PutChunks(iter(upload.chunks), timeout=S)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    upload.go_on.set()
    assert upload.put.result(20).stored == len(upload.chunks)
    assert upload.commit().digest == upload.message.manifest.digest
    assert aggregator.process.wait(20) == 0
    assert aggregator.said("left behind") == aggregator.said("Traceback") == 0
    again, _ = started()
    with connect(again.listening, role="site", site="north") as channel:
        assert upload.status(FederationStub(channel)).sealed


def test_an_upload_that_does_not_end_is_left_behind_and_its_first_chunk_is_not_sent_again(started, stack):
    aggregator, run = started("--drain", "1")
    upload = Upload(aggregator, run, stack)
    aggregator.process.terminate()
    assert aggregator.process.wait(20) == 0
    assert aggregator.said("left behind") == 1
    upload.go_on.set()
    assert isinstance(upload.put.exception(20), grpc.RpcError)
    again, _ = started()
    with connect(again.listening, role="site", site="north") as channel:
        missing = unary(FederationStub(channel).BeginUpload, upload.message, S).missing
    assert len(missing) == len(upload.chunks) - 1
    assert upload.chunks[0].sha256 not in missing


def test_a_site_that_waits_for_a_task_is_answered_at_once(started, stack):
    aggregator, run = started("--drain", "20")
    with connect(aggregator.listening, role="site", site="north") as channel:
        stub = FederationStub(channel)
        assert unary(stub.NextTask, pb.NextTaskRequest(run=run), S).HasField("task")
        stack.enter_context(aggregator.runs()).abort(run, "nothing is left to do")
        waiting = stub.NextTask.future(pb.NextTaskRequest(wait_ms=25_000), timeout=60)
        unary(stub.Hello, pb.HelloRequest(protocol_min=1, protocol_max=9), S)  # by the same connection: the poll is in
        assert not waiting.done()
        aggregator.process.terminate()
        assert not waiting.result(10).HasField("task")  # of 25 s
        assert aggregator.process.wait(10) == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_told_twice_it_ends_at_once(started, stack, second):
    aggregator, run = started("--drain", "300")
    Upload(aggregator, run, stack)
    aggregator.process.terminate()
    wait_for(lambda: health(aggregator) == NOT_SERVING, 10)
    aggregator.process.send_signal(second)
    assert aggregator.process.wait(5) == 128 + second
    again, _ = started()
    assert again.process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_while_it_waits_for_another_aggregator_it_ends_at_once(started, tmp_path, number):
    started()
    pipe = subprocess.PIPE
    waiting = subprocess.Popen(command(tmp_path, "--takeover", "300"), stdout=pipe, stderr=pipe, text=True)
    with waiting:
        try:
            said = []
            for line in waiting.stderr:  # ends with the process
                said.append(line)
                if "waits for another aggregator to end" in line:
                    break
            waiting.send_signal(number)
            assert waiting.wait(10) == 128 + number
            assert "Traceback" not in "".join(said) + waiting.stderr.read()
        finally:
            waiting.kill()


def test_probes_hear_nothing_before_it_can_serve_and_then_that_it_does(started, tmp_path):
    first, _ = started()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = f"127.0.0.1:{free.getsockname()[1]}"
    flags = command(tmp_path, "--takeover", "60", "--health", port)  # the last of two --health counts
    with subprocess.Popen(flags, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as second:
        try:
            assert any("waits for another aggregator to end" in line for line in second.stderr)
            with grpc.insecure_channel(port) as channel, pytest.raises(grpc.RpcError) as refused:
                health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=S)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            first.process.terminate()
            assert json.loads(second.stdout.readline())["health"] == port
            with grpc.insecure_channel(port) as channel:
                reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=S)
            assert reply.status == SERVING
        finally:
            second.kill()


@pytest.mark.parametrize("in_time", [True, False])
def test_a_phase_that_is_being_computed_is_finished_or_left_for_the_next_start(tmp_path, clock, in_time):
    begun, go_on = threading.Event(), threading.Event()

    def slow(spec):
        strategy = make(spec)

        def aggregate(*arguments):
            begun.set()
            assert go_on.wait(60)
            return strategy.aggregate(*arguments)

        return replace(strategy, aggregate=aggregate)

    desk = replace(open_aggregator(tmp_path, clock).desk, make=slow)
    aggregator = replace(assemble_aggregator(desk), drain_s=20.0 if in_time else 0.5)
    with served(aggregator) as server:
        run = server.runs.start(run_spec("north", rounds=1), "once")
        assert TeachingSite("north", server.site("north", run), adapter(0)).step()
        assert begun.wait(10)
        if in_time:
            threading.Timer(0.5, go_on.set).start()
    went_on = go_on.is_set()  # the server has ended, which it does within 10 s
    go_on.set()
    desk.store.close()
    again = open_aggregator(tmp_path, clock)
    kinds = [event.kind for event in again.runs.events(run, 0)]
    assert went_on is in_time is ("phase_published" in kinds)
    assert again.coordinator.close_due() == (0 if in_time else 1)
    again.desk.store.close()
