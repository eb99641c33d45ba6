"""No update without a valid attestation: over real gRPC and a real database."""

from dataclasses import replace
from math import inf

import pytest

from deerfield.errors import BadAttestation, BadRequest, BudgetExhausted
from deerfield.exchange import announce
from deerfield.runspec import Federation
from deerfield.types import Spend
from deerfield.wire import codec
from deerfield.wire.calls import unary
from deerfield.wire.channel import connect
from deerfield.wire.federation_pb2_grpc import FederationStub
from tests.attesting import again, by_another_key
from tests.fakes import run_spec
from tests.integration.aggregator.attestations.conftest import POPULATION, PRIVACY, local, remote


def spend(**changes):
    return lambda update: again(update, spend=replace(update.attestation.spend, **changes))


def unsigned_after(**changes):
    return lambda update: replace(update, attestation=replace(update.attestation, **changes))


def spent(**changes):
    return replace(Spend(unit="record", noise_multiplier=0.5, sample_rate=1.0, steps=1, clip=1.0), **changes)


REFUSED = {
    "changed after it was signed": (unsigned_after(epsilon_after=0.1), BadAttestation, "not signed by the key"),
    "signed by nobody": (unsigned_after(signature="00" * 64), BadAttestation, "not signed by the key"),
    "another site": (lambda u: again(u, site="south"), BadAttestation, "of site south, the call is of site north"),
    "another population": (lambda u: again(u, population="staff"), BadAttestation, "of population staff"),
    "another run": (lambda u: again(u, run="yesterday"), BadAttestation, "of run yesterday"),
    "another incarnation": (lambda u: again(u, incarnation=7), BadAttestation, "of incarnation 7"),
    "another round": (lambda u: again(u, round=1), BadAttestation, "of round 1, the call is of round 0"),
    "another phase": (lambda u: again(u, phase=1), BadAttestation, "of phase 1"),
    "another update": (lambda u: again(u, update="0" * 64), BadAttestation, "of update 000"),
    "a falling epsilon": (lambda u: again(u, epsilon_before=9.0), BadAttestation, "falls from 9 to"),
    "an epsilon below its own cost": (lambda u: again(u, epsilon_after=0.01), BadAttestation, "this task alone costs"),
    "an accountant of its own": (lambda u: again(u, accountant="guess"), BadAttestation, "counted by 'guess'"),
    "metrics of another unit": (lambda u: again(u, beside=(spent(unit="patient"),)), BadRequest, "every record"),
    "metrics at a rate": (lambda u: again(u, beside=(spent(sample_rate=0.001),)), BadRequest, "at sample rate 1"),
    "metrics beyond the budget": (lambda u: again(u, beside=(spent(),)), BudgetExhausted, "the run allows 3"),
    "another unit": (
        lambda u: again(u, spend=replace(u.attestation.spend, unit="none"), epsilon_after=inf),
        BadRequest,
        "the run says",
    ),
    "less noise": (spend(noise_multiplier=0.5), BudgetExhausted, "the run allows 3"),
    "another rate": (spend(sample_rate=0.25), BadRequest, "the run says"),
    "other steps": (spend(steps=1), BadRequest, "the run says"),
    "another clip": (spend(clip=2.0), BadRequest, "the run says"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_update_without_a_valid_attestation_is_refused_in_one_sentence(server, run, name):
    change, error, says = REFUSED[name]
    north = remote(server, "north", run)
    assignment = north.link.next_task()
    good = north.update(assignment)
    with pytest.raises(error, match=says) as refused:
        north.link.send(assignment, change(good))
    assert "\n" not in str(refused.value)
    assert north.link.head(POPULATION) is None  # nothing was recorded
    north.link.send(assignment, good)  # and nothing was lost


def test_an_update_without_an_attestation_never_leaves_the_client_and_never_enters_the_aggregator(server, run):
    north = remote(server, "north", run)
    assignment = north.link.next_task()
    good = north.update(assignment)
    with pytest.raises(BadAttestation, match="carries no attestation"):
        north.link.send(assignment, replace(good, attestation=None))
    message = codec.encode_announcement(assignment.key, announce(good))
    message.ClearField("attestation")
    with (
        connect(server.ports.listening, role="site", site="north") as channel,
        pytest.raises(BadAttestation, match="carries no attestation"),
    ):
        unary(FederationStub(channel).BeginUpload, message, 5)


def test_unit_none_costs_infinity_and_says_so(aggregator):
    open_run = aggregator.runs.start(run_spec("north"), "none")
    north = local(aggregator, "north", open_run, noise_multiplier=0.0)
    assignment = north.link.next_task()
    good = north.update(assignment)
    with pytest.raises(BadAttestation, match="attested epsilon 3 is below the inf"):
        north.link.send(assignment, again(good, epsilon_after=3.0))
    assert north.link.send(assignment, good).epsilon_after == inf


@pytest.mark.parametrize("less", [{"epsilon_after": 6.9}, {"delta_after": 1e-7}])
def test_a_ledger_that_has_less_than_it_had_is_refused(aggregator, run, less):
    north, south = local(aggregator, "north", run), local(aggregator, "south", run)
    assignment = north.link.next_task()
    north.link.send(assignment, again(north.update(assignment), epsilon_before=6.0, epsilon_after=7.0))
    south.step()
    aggregator.coordinator.close_due()
    assignment = north.link.next_task()
    good = again(north.update(assignment), epsilon_before=6.0, epsilon_after=7.0)
    with pytest.raises(BadAttestation, match="falls from epsilon 7"):
        north.link.send(assignment, again(good, **less))
    north.link.send(assignment, again(good))


def test_a_population_that_has_spent_more_than_the_consortium_allows_is_refused(aggregator):
    federation = Federation(sites=("north",), lifetime_epsilon=5.0)
    spec = run_spec("north", privacy=PRIVACY).model_copy(update={"federation": federation})
    north = local(aggregator, "north", aggregator.runs.start(spec, "capped"))
    assignment = north.link.next_task()
    for epsilon in (5.1, inf):
        with pytest.raises(BadAttestation, match="requires a lifetime epsilon of 5"):
            north.link.send(assignment, again(north.update(assignment), epsilon_after=epsilon))
    north.link.send(assignment, again(north.update(assignment), epsilon_after=5.0))


def test_a_site_keeps_the_key_of_its_first_attestation(server, run):
    north = remote(server, "north", run)
    assignment = north.link.next_task()
    good = north.update(assignment)
    # announced, and never sealed: the key is known all the same
    server.aggregator.intake.begin("north", assignment.key, announce(again(good)))
    with pytest.raises(BadAttestation, match="restore the site's key"):
        north.link.send(assignment, by_another_key(good))
    north.link.send(assignment, again(good))
    remote(server, "south", run).step()  # another site, another key
