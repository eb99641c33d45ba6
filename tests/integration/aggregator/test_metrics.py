"""What a Prometheus reads from an aggregator while a run goes on, and after it."""

from dataclasses import replace

import grpc
import pytest
from prometheus_client import CollectorRegistry

from deerfield.errors import InvalidInput, NoRoom, NotFinite, RoundClosed, Superseded, TooBusy, TooLarge, Unreachable
from deerfield.exchange import announce
from deerfield.manifest import pieces
from deerfield.runspec import Privacy
from deerfield.wire import codec
from deerfield.wire import federation_pb2 as pb
from deerfield.wire.calls import unary, upstream
from deerfield.wire.channel import connect
from deerfield.wire.federation_pb2_grpc import FederationStub
from deerfield.wire.status import reason_of, to_status
from services.aggregator.assembly import assemble_aggregator
from services.aggregator.bounds import Bounds
from services.aggregator.metrics import Metrics
from services.client import metrics
from services.telemetry.exposition import exposed
from tests.attesting import again
from tests.fakes import TeachingSite, adapter, run_spec
from tests.integration.aggregator.conftest import MEASURED, open_aggregator, served
from tests.integration.aggregator.security import Consortium
from tests.integration.federation import wait_for
from tests.scraped import fetched, figure, samples


@pytest.fixture
def server(tmp_path, clock):
    opened = open_aggregator(tmp_path / "aggregator", clock)
    with served(opened, asked=MEASURED) as found:
        yield found
    opened.desk.store.close()


def read(server, name, **labels):
    return figure(server.ports.metrics, f"deerfield_{name}", **labels)


def test_a_run_is_told_from_its_start_to_its_end_and_leaves_no_label(server, clock):
    run = server.runs.start(
        run_spec("east", "north", "south", rounds=2, strategy="fedavg", quorum=1, deadline_s=50), "once"
    )
    sites = {
        name: TeachingSite(name, server.site(name, run), adapter(i))
        for i, name in enumerate(("east", "north", "south"))
    }
    assert read(server, "phase_state", run=run, state="OPEN") == 1
    assert read(server, "sites", run=run, status="waiting") == 3
    clock.advance(30)
    late = sites["south"].link.next_task()
    sites["east"].link.decline(sites["east"].link.next_task(), "NOT_MAPPED", "no such population")
    assert sites["north"].step()
    clock.advance(10)
    assert (read(server, "phase_age_seconds", run=run), read(server, "phase_deadline_seconds", run=run)) == (40, 50)
    assert [read(server, "sites", run=run, status=status) for status in ("taken", "sealed", "declined")] == [1, 1, 1]
    assert read(server, "sites_declined", run=run, reason="NOT_MAPPED") == 1
    assert read(server, "sites_seen", run=run) == 3
    clock.advance(50)  # the deadline, since the last answer: south is late
    assert sites["north"].link.next_task().task.round == 1
    assert (read(server, "round", run=run), read(server, "sites_late", run=run)) == (1, 1)
    assert read(server, "deviation", run=run) is not None
    assert read(server, "epsilon_spent", run=run) == float("inf")
    assert read(server, "aggregation_seconds_count") == 1
    with pytest.raises(RoundClosed):
        sites["south"].link.send(late, sites["south"].update(late))
    wait_for(lambda: read(server, "updates_refused_total", reason="ROUND_CLOSED") == 1, 10)
    server.runs.abort(run, "seen enough")
    assert read(server, "runs_running") == 0
    assert [each for each in samples(server.ports.metrics) if each.labels.get("run")] == []


def test_an_update_that_comes_again_is_none_that_was_refused():
    metrics = Metrics()
    for error in (NotFinite(""), TooBusy(""), Unreachable(""), Superseded(""), NoRoom("")):
        metrics.refused("PutChunks", reason_of(to_status(error).trailing_metadata))

    def counted(name, **labels):
        return metrics.registry.get_sample_value(f"deerfield_{name}_refused_total", labels)

    reasons = {"NOT_FINITE": 1, "TOO_BUSY": 1, "UNAVAILABLE": 2, "NO_ROOM": 1, "REASON_UNSPECIFIED": None}
    assert {reason: counted("calls", call="PutChunks", reason=reason) for reason in reasons} == reasons
    updates = {reason: counted("updates", reason=reason) for reason in reasons}
    assert updates == {**dict.fromkeys(reasons), "NOT_FINITE": 1}


def test_an_upload_that_is_told_to_wait_is_counted_as_a_call_alone(tmp_path, clock):
    opened = open_aggregator(tmp_path / "aggregator", clock)
    slow = assemble_aggregator(opened.desk, bounds=Bounds(rate=0.01, burst=1))
    with served(slow, asked=MEASURED) as server, connect(server.ports.listening, role="site", site="north") as channel:
        for _ in range(2):
            with pytest.raises(grpc.RpcError):
                FederationStub(channel).BeginUpload(pb.BeginUploadRequest(), timeout=5)
        wait_for(lambda: read(server, "calls_refused_total", call="BeginUpload", reason="TOO_BUSY") == 1, 10)
        counted = [each for each in samples(server.ports.metrics) if each.name == "deerfield_updates_refused_total"]
        assert [each.value for each in counted] == [1]
        assert counted[0].labels["reason"] != "TOO_BUSY"
    opened.desk.store.close()


def test_a_paused_run_is_still_told_and_its_clock_stands_still(server, clock):
    run = server.runs.start(run_spec("north", rounds=1), "once")
    clock.advance(10)
    server.runs.pause(run, "audit")
    clock.advance(1000)
    assert (read(server, "runs_running"), read(server, "runs_paused")) == (0, 1)
    assert read(server, "phase_age_seconds", run=run) == 10
    assert read(server, "sites", run=run, status="waiting") == 1
    server.runs.resume(run)
    assert (read(server, "runs_running"), read(server, "runs_paused")) == (1, 0)
    assert read(server, "phase_age_seconds", run=run) == 10


def test_bytes_are_counted_and_what_was_here_already_is_counted_as_resumed(server):
    run = server.runs.start(run_spec("north", "south", rounds=1), "once")
    north = TeachingSite("north", server.site("north", run), adapter(1))
    assignment = north.link.next_task()
    update = north.update(assignment)
    announcement = announce(update)
    message, stub = codec.encode_announcement(assignment.key, announcement), north.link._stub
    missing = unary(stub.BeginUpload, message, 5).missing
    first = frozenset({missing[0].hex()})
    chunks = list(pieces(update.delta, announcement.manifest, first))
    upstream(stub.PutChunks, (codec.encode_chunk(*each) for each in chunks), 5)
    here = sum(len(data) for _, data in chunks)
    assert (read(server, "upload_bytes_total"), read(server, "upload_resumed_bytes_total")) == (here, 0)
    north.link.send(assignment, update)
    assert read(server, "upload_resumed_bytes_total") == here
    assert read(server, "upload_bytes_total") == announcement.manifest.bytes_beyond(frozenset())
    assert read(server, "upload_seconds_count") == 2
    assert read(server, "download_bytes_total") > 0
    with pytest.raises(TooLarge):
        north.link.send(assignment, again(replace(update, metrics={str(i): 0.0 for i in range(999)})))
    wait_for(lambda: read(server, "updates_refused_total", reason="TOO_LARGE") == 1, 10)


def test_budget_that_is_left_is_told_where_the_run_has_one(server):
    privacy = Privacy(unit="record", epsilon=8.0, delta=1e-6)
    spec = run_spec("north", rounds=2, strategy="fedavg", privacy=privacy)
    run = server.runs.start(spec, "once")
    assert TeachingSite("north", server.site("north", run), adapter(1), noise_multiplier=5.0).step()
    server.site("north", run).next_task()  # once it has one, the first phase is published
    spent, left = read(server, "epsilon_spent", run=run), read(server, "epsilon_left", run=run, scope="run")
    assert 0 < spent < 8
    assert left == pytest.approx(8 - spent)


def test_over_tls_the_end_of_the_certificate_is_told(tmp_path, clock):
    lungs = Consortium.found(tmp_path / "lungs")
    gate = lungs.gate()
    opened = open_aggregator(tmp_path / "aggregator", clock)
    with served(opened, gate=gate, asked=MEASURED) as server:
        assert read(server, "certificate_expiry_timestamp_seconds") == gate.expires().timestamp()
    opened.desk.store.close()


def test_a_database_that_is_gone_is_told_and_the_rest_is_still_there(server):
    server.aggregator.desk.store.close()
    text = fetched(server.ports.metrics)
    assert "deerfield_uploads_admitted 0.0" in text


def test_an_address_of_ipv6_is_served():
    with exposed(CollectorRegistry(), "[::1]:0") as address:
        assert fetched(address) == ""


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:99999", "127.0.0.1:x"])
def test_an_address_that_is_none_is_one_sentence(address):
    with pytest.raises(InvalidInput, match="no host:port"), exposed(CollectorRegistry(), address):
        pass


def test_a_port_that_is_taken_is_one_sentence(server):
    with (
        pytest.raises(InvalidInput, match="is in use or cannot be bound"),
        exposed(CollectorRegistry(), server.ports.metrics),
    ):
        pass


def test_a_site_tells_its_tasks_its_contact_and_what_is_left(server, clock):
    run = server.runs.start(run_spec("north", "south", rounds=2, strategy="fedavg", quorum=1, deadline_s=50), "once")
    figures = metrics.Metrics(lambda: {"patients": (5.5, 1e-6)}, None, clock)
    north = TeachingSite("north", metrics.MeasuredLink(server.site("north", run), figures), adapter(1))
    with exposed(figures.registry, "127.0.0.1:0") as address:
        assert figure(address, "deerfield_site_contact_timestamp_seconds") == 0
        assert north.step()
        assert figure(address, "deerfield_site_contact_timestamp_seconds") == clock.now
        assert figure(address, "deerfield_site_tasks_total", outcome="sealed") == 1
        assert figure(address, "deerfield_site_upload_seconds_count") == 1
        clock.advance(60)
        assignment = north.link.next_task()
        assert figure(address, "deerfield_site_round") == 1
        north.link.heartbeat(assignment, 3, 8)
        assert [figure(address, "deerfield_site_steps", which=which) for which in ("done", "all")] == [3, 8]
        north.link.decline(assignment, "NOT_MAPPED", "no such population")
        assert figure(address, "deerfield_site_tasks_total", outcome="NOT_MAPPED") == 1
        assert figure(address, "deerfield_site_epsilon_left", population="patients") == 5.5
