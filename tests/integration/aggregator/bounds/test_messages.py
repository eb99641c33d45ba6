"""What one message says is too much: manifests, metadata, and our own sentences."""

from contextlib import ExitStack

import grpc
import pytest

from deerfield.errors import InvalidInput, TooLarge
from deerfield.runspec import RunSpec
from deerfield.wire import federation_pb2 as pb
from deerfield.wire import limits
from deerfield.wire.calls import unary
from deerfield.wire.channel import connect
from deerfield.wire.federation_pb2_grpc import RunsStub
from tests.fakes import TeachingSite, adapter, run_spec
from tests.integration.aggregator.bounds.conftest import assert_served, site_stub
from tests.integration.aggregator.teaching import announcement


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m: m.tensors[0].shape.__setitem__(slice(None), [1 << 40]), f"{4 << 40} bytes in"),
        (lambda m: m.tensors[0].shape.extend([1] * 8), "dimensions in"),
        (lambda m: m.tensors[0].chunks.extend([bytes(32)] * limits.CHUNKS), "chunks in a manifest; the limit is 32768"),
        (lambda m: [m.tensors.add(shape=[1 << 26]) for _ in range(17)], "bytes in a manifest; the limit is 4294967296"),
        (lambda m: [m.tensors.add(shape=[1]) for _ in range(limits.TENSORS)], "tensors in a manifest; the limit is"),
    ],
)
def test_a_manifest_over_a_limit_is_refused_with_value_and_limit(bounded, change, sentence):
    server = bounded()
    run = server.runs.start(run_spec("north", "south"), "once")
    with ExitStack() as stack:
        stub = site_stub(server, stack)
        message = announcement(TeachingSite("north", server.site("north", run), adapter(1)))
        change(message.manifest)
        with pytest.raises(TooLarge, match=sentence):
            unary(stub.BeginUpload, message, 10)


def test_metadata_over_the_limit_is_refused_by_gRPC_with_value_and_limit(bounded):
    server = bounded()
    with ExitStack() as stack:
        stub = site_stub(server, stack)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Hello(pb.HelloRequest(), timeout=5, metadata=(("x-large", "x" * limits.METADATA_BYTES),))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert str(limits.METADATA_BYTES) in caught.value.details()
        assert_served(server)


def test_a_sentence_that_is_too_long_for_metadata_is_cut_and_keeps_its_reason(bounded):
    server = bounded()
    for letter in ("a", "\N{DEER}"):
        spec = RunSpec.model_validate({**run_spec("a").model_dump(), "labels": [letter * 30_000, "no"]})
        with ExitStack() as stack:
            operator = RunsStub(stack.enter_context(connect(server.ports.listening, role="operator")))
            text = spec.canonical().replace('"population"', f'"{letter * 30_000}":1,"population"')
            with pytest.raises(InvalidInput, match=letter * 100):
                unary(operator.Start, pb.StartRequest(request_id="once", spec=text), 10)
