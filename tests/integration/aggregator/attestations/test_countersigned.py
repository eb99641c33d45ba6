"""A sealed update is answered by its head, countersigned: the same answer again, also after a restart."""

from dataclasses import replace

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from deerfield.attestation import countersign, head_statement, public_key
from deerfield.errors import BadAttestation
from deerfield.wire import signed
from deerfield.wire.backoff import Backoff
from deerfield.wire.channel import connect
from deerfield.wire.client import SiteClient
from tests.attesting import again, by_another_key, key_of
from tests.fakes import LosesAnswers, TeachingSite, adapter, run_spec
from tests.integration.aggregator.attestations.conftest import POPULATION, PRIVACY, local, remote
from tests.integration.aggregator.conftest import served


def test_the_same_upload_again_gets_the_same_answer_even_after_later_ones(server, run):
    north, south = remote(server, "north", run), remote(server, "south", run)
    assignment = north.link.next_task()
    update = north.update(assignment)
    receipts = {north.link.send(assignment, update) for _ in range(3)}
    south.step()
    while (later := north.link.next_task()) is None:
        pass
    newest = north.link.send(later, north.update(later))
    receipts.add(north.link.send(assignment, update))
    assert len(receipts) == 1
    assert north.link.head(POPULATION) == newest  # an old answer does not move the head back
    with pytest.raises(BadAttestation, match="resend the stored attestation"):
        north.link.send(assignment, again(update))
    server.aggregator.runs.abort(run, "done")
    kinds = [event.kind for event in server.aggregator.runs.events(run, 0)]
    assert kinds.count("update_sealed") == 3


@pytest.mark.parametrize("method", ["BeginUpload", "Commit"])
def test_a_lost_answer_is_made_good_with_the_same_countersigned_head(server, run, method):
    with connect(server.ports.listening, role="site", site="north") as channel:
        losing = grpc.intercept_channel(channel, LosesAnswers(method, losses=1))
        north = TeachingSite("north", SiteClient(losing, run=run, backoff=Backoff(first_s=0.01)), adapter(1), 4.0)
        assignment = north.link.next_task()
        update = north.update(assignment)
        receipt = north.link.send(assignment, update)
    assert receipt.head == update.attestation.ledger_head
    assert remote(server, "north", run).link.head(POPULATION) == receipt


class Forges(grpc.UnaryUnaryClientInterceptor):
    """An aggregator whose answers to `method` carry another head."""

    def __init__(self, method, head):
        self.method, self.head = method, head

    def intercept_unary_unary(self, continuation, client_call_details, request):
        answer = continuation(client_call_details, request)
        if not client_call_details.method.endswith(f"/{self.method}"):
            return answer
        reply = answer.result()
        reply.ClearField("head")
        if self.head is not None:
            reply.head.CopyFrom(signed.encode_head(self.head))
        return Answered(reply)


class Answered:
    """A call that has ended well."""

    def __init__(self, reply):
        self.reply = reply

    def result(self):
        return self.reply


def test_a_client_believes_no_answer_that_does_not_countersign_what_it_attested(server, run):
    north = remote(server, "north", run)
    assignment = north.link.next_task()
    update = north.update(assignment)
    receipt = north.link.send(assignment, update)
    later = countersign(key_of("an aggregator"), replace(update.attestation, ledger_sequence=10**6))
    with connect(server.ports.listening, role="site", site="north") as channel:
        for head in (None, later, replace(receipt, signature="00" * 64)):
            link = SiteClient(grpc.intercept_channel(channel, Forges("Commit", head)), run=run)
            with pytest.raises(BadAttestation, match=r"countersign|not signed"):
                link.send(assignment, update)
        for head in (replace(receipt, epsilon_after=0.0), replace(receipt, population="staff")):
            link = SiteClient(grpc.intercept_channel(channel, Forges("LedgerHead", head)), run=run)
            with pytest.raises(BadAttestation, match=r"not signed|answered for staff"):
                link.head(POPULATION)


def test_a_head_is_signed_by_the_aggregators_key_and_survives_its_restart(tmp_path, open_in):
    first = open_in(tmp_path)
    run = first.runs.start(run_spec("north", "south", privacy=PRIVACY), "once")
    north = local(first, "north", run)
    assignment = north.link.next_task()
    update = north.update(assignment)
    receipt = north.link.send(assignment, update)
    first.desk.store.close()

    second = open_in(tmp_path)
    with served(second) as server:
        link = server.site("north", run)
        assert link.head(POPULATION) == receipt
        assert link.send(assignment, update) == receipt
        assert link.head("staff") is None
    local(second, "south", run).step()
    second.coordinator.close_due()
    north = local(second, "north", run)
    assignment = north.link.next_task()
    with pytest.raises(BadAttestation, match="restore the site's key"):
        north.link.send(assignment, by_another_key(north.update(assignment)))
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key(second.desk.key)))
    key.verify(bytes.fromhex(receipt.signature), head_statement(receipt))
    second.desk.store.close()
