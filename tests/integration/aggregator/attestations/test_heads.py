"""The heads of ledgers that an aggregator keeps, from the moment when their updates may have left."""

from dataclasses import replace
from math import inf

import numpy as np
import pytest

from deerfield.attestation import sign
from deerfield.errors import BadAttestation, BadRequest, NotFinite
from deerfield.exchange import announce
from deerfield.manifest import pieces
from deerfield.wire import federation_pb2 as pb
from deerfield.wire.calls import unary
from deerfield.wire.channel import connect
from deerfield.wire.federation_pb2_grpc import FederationStub
from pipelines.runs.result import Result
from services.aggregator.sql.tables import heads
from tests.attesting import again, key_of
from tests.fakes import run_spec
from tests.integration.aggregator.attestations.conftest import POPULATION, PRIVACY, local, remote


def test_a_head_is_on_record_as_soon_as_its_update_may_have_left_and_whatever_becomes_of_it(aggregator):
    run = aggregator.runs.start(run_spec("north", "south", quorum=1, privacy=PRIVACY), "once")
    north = local(aggregator, "north", run)
    assignment = north.link.next_task()
    good = north.update(assignment)
    bad = again(replace(good, delta={k: v * np.nan for k, v in good.delta.items()}))
    with pytest.raises(NotFinite):
        north.link.send(assignment, bad)
    assert north.link.head(POPULATION).head == bad.attestation.ledger_head
    local(aggregator, "south", run).step()
    assert aggregator.coordinator.close_due() == 1  # without the bad one
    assignment = north.link.next_task()
    good = north.update(assignment)
    receipt = north.link.send(assignment, good)
    told = good.attestation
    assert (receipt.site, receipt.population) == ("north", POPULATION)
    assert (receipt.sequence, receipt.head) == (told.ledger_sequence, told.ledger_head)
    assert receipt.epsilon_after == told.epsilon_after
    assert north.link.head(POPULATION) == receipt


def test_a_transaction_that_breaks_seals_nothing(aggregator, run):
    north = local(aggregator, "north", run)
    assignment = north.link.next_task()
    update = north.update(assignment)
    manifest, intake = announce(update).manifest, aggregator.intake
    missing = intake.begin("north", assignment.key, announce(update))
    for sha, data in pieces(update.delta, manifest, missing):
        intake.put(missing, sha, data)
    sealing = intake.sealing("north", assignment.key, manifest.digest)
    ticks = aggregator.desk.clock.now
    aggregator.desk.clock.now = "no time"  # the last write of the transaction fails on it
    with pytest.raises(Exception, match="no time"):
        intake.seal(sealing)
    aggregator.desk.clock.now = ticks
    assert not intake.status("north", assignment.key).sealed


def test_a_record_that_was_changed_in_the_database_is_not_believed(aggregator, run):
    north = local(aggregator, "north", run)
    north.step()
    with aggregator.desk.store.edge() as edge:
        edge.heads._connection.execute(heads.update().values(epsilon_after=0.0))
    with pytest.raises(BadAttestation, match="not signed by the key"):
        north.link.head(POPULATION)


def test_a_site_cannot_move_or_read_the_head_of_another(server, run):
    north, south = remote(server, "north", run), remote(server, "south", run)
    assignment = north.link.next_task()
    receipt = north.link.send(assignment, north.update(assignment))
    theirs = south.link.next_task()
    update = south.update(theirs)
    about_north = replace(update.attestation, site="north", ledger_sequence=10**6)
    for signer in ("north", "south"):
        forged = replace(update, attestation=sign(key_of(signer), about_north))
        with pytest.raises(BadAttestation, match="of site north, the call is of site south"):
            south.link.send(theirs, forged)
    assert south.link.head(POPULATION) is None
    own = south.link.send(theirs, update)
    assert (north.link.head(POPULATION), south.link.head(POPULATION)) == (receipt, own)
    assert server.site("west").head(POPULATION) is None


def test_a_population_that_cannot_be_asked_for_is_refused(server):
    with connect(server.ports.listening, role="site", site="north") as channel:
        for name in ("", "x" * 300):
            with pytest.raises(BadRequest, match="population's name"):
                unary(FederationStub(channel).LedgerHead, pb.LedgerHeadRequest(population=name), 5)


def test_what_a_population_has_spent_over_all_runs_stands_in_the_result(aggregator, run):
    spent = {"north": 7.5, "south": inf}
    for name, epsilon in spent.items():
        site = local(aggregator, name, run)
        assignment = site.link.next_task()
        site.link.send(assignment, again(site.update(assignment), epsilon_before=7.0, epsilon_after=epsilon))
    aggregator.coordinator.close_due()
    result = Result(aggregator.runs.get(run).spec, run)
    for event in aggregator.runs.events(run, 0):
        result.seen(event)
    found = result.json()
    assert {name: site["epsilon_total"] for name, site in found["sites"].items()} == {"north": 7.5, "south": "infinity"}
    assert found["rounds"][0]["epsilon_total"] == {"north": 7.5, "south": "infinity"}
    assert all(0 < site["epsilon"] < 3 for site in found["sites"].values())  # of this run alone
