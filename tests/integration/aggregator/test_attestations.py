"""No update without a valid attestation, and the heads that are kept: over real gRPC and a real database."""

import stat
from dataclasses import replace
from math import inf

import grpc
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from deerfield import keyfile
from deerfield.attestation import countersign, head_statement, public_key, sign
from deerfield.errors import BadAttestation, BadRequest, BudgetExhausted, InvalidInput, NotFinite
from deerfield.exchange import announce
from deerfield.manifest import pieces
from deerfield.runspec import Federation, Privacy
from deerfield.types import Spend
from deerfield.wire import codec, signed
from deerfield.wire import federation_pb2 as pb
from deerfield.wire.backoff import Backoff
from deerfield.wire.calls import unary
from deerfield.wire.channel import connect
from deerfield.wire.client import SiteClient
from deerfield.wire.federation_pb2_grpc import FederationStub
from pipelines.result import Result
from pipelines.simulation import LocalLink
from services.aggregator.settings import read_settings
from services.aggregator.sql.tables import heads
from tests.attesting import again, key_of
from tests.fakes import LosesAnswers, TeachingSite, adapter, run_spec
from tests.integration.aggregator.conftest import served

PRIVACY = Privacy(unit="record", epsilon=3.0, clip=1.0, sample_rate=0.5)
POPULATION = "patients"


def local(aggregator, name, run, seed=1, noise_multiplier=4.0):
    return TeachingSite(name, LocalLink(aggregator, name, run), adapter(seed), noise_multiplier)


def remote(server, name, run, seed=1):
    return TeachingSite(name, server.site(name, run), adapter(seed), 4.0)


@pytest.fixture
def run(aggregator):
    return aggregator.runs.start(run_spec("north", "south", rounds=2, privacy=PRIVACY), "once")


def spend(**changes):
    return lambda update: again(update, spend=replace(update.attestation.spend, **changes))


def by_another_key(update):
    return replace(update, attestation=sign(Ed25519PrivateKey.generate(), update.attestation))


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


def test_entries_of_a_ledger_are_attested_in_their_order(aggregator, run):
    north, south = local(aggregator, "north", run), local(aggregator, "south", run)
    first = north.link.next_task()
    north.link.send(first, again(north.update(first), ledger_sequence=10))
    south.step()
    aggregator.coordinator.close_due()
    second = north.link.next_task()
    good = north.update(second)
    for number in (0, 9, 10):
        with pytest.raises(BadAttestation, match=rf"entry {number} .* is not after entry 10"):
            north.link.send(second, again(good, ledger_sequence=number))
    assert not any(map(aggregator.desk.uploads.has, announce(good).manifest.chunks))  # refused before a byte was taken
    north.link.send(second, again(good, ledger_sequence=11))
    assert north.link.head(POPULATION).sequence == 11


def test_the_order_holds_over_all_runs_of_a_population_and_over_no_other(aggregator, run):
    north = local(aggregator, "north", run)
    first = north.link.next_task()
    north.link.send(first, again(north.update(first), ledger_sequence=10))
    same = local(
        aggregator, "north", aggregator.runs.start(run_spec("north", name="second", privacy=PRIVACY), "second")
    )
    assignment = same.link.next_task()
    with pytest.raises(BadAttestation, match="not after entry 10"):
        same.link.send(assignment, again(same.update(assignment), ledger_sequence=10))
    elsewhere = run_spec("north", name="third", privacy=PRIVACY).model_copy(update={"population": "staff"})
    other = local(aggregator, "north", aggregator.runs.start(elsewhere, "third"))
    assignment = other.link.next_task()
    other.link.send(assignment, again(other.update(assignment), ledger_sequence=1))
    assert (north.link.head(POPULATION).sequence, north.link.head("staff").sequence) == (10, 1)


def test_of_two_announced_updates_the_older_entry_cannot_be_sealed_after_the_newer(aggregator, run):
    second = aggregator.runs.start(run_spec("north", name="second", privacy=PRIVACY), "second")
    older, newer = local(aggregator, "north", run), local(aggregator, "north", second)
    tasks = older.link.next_task(), newer.link.next_task()
    first = again(older.update(tasks[0]), ledger_sequence=5)
    intake, announcement = aggregator.intake, announce(first)
    missing = intake.begin("north", tasks[0].key, announcement)
    newer.link.send(tasks[1], again(newer.update(tasks[1]), ledger_sequence=6))
    for sha, data in pieces(first.delta, announcement.manifest, missing):
        intake.put(missing, sha, data)
    with pytest.raises(BadAttestation, match=r"entry 5 .* is not after entry 6"):
        intake.commit("north", tasks[0].key, announcement.manifest.digest)
    assert not intake.status("north", tasks[0].key).sealed
    assert newer.link.head(POPULATION).sequence == 6


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


# --- the aggregator's own key ---


def test_the_key_is_made_once_for_its_owner_alone(tmp_path):
    path = tmp_path / "new" / "aggregator.key"
    made = keyfile.load(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert public_key(keyfile.load(path)) == public_key(made)
    assert list(path.parent.iterdir()) == [path]


def test_a_key_file_that_cannot_be_trusted_or_used_is_one_sentence(tmp_path):
    path = tmp_path / "aggregator.key"
    keyfile.load(path)
    path.chmod(0o640)
    with pytest.raises(InvalidInput, match="chmod 600"):
        keyfile.load(path)
    path.chmod(0o600)
    path.write_text("-----BEGIN NOTHING-----\n")
    with pytest.raises(InvalidInput, match="holds no signing key"):
        keyfile.load(path)
    other = X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(other)
    with pytest.raises(InvalidInput, match="another kind"):
        keyfile.load(path)
    with pytest.raises(InvalidInput, match="cannot be used"):
        keyfile.load(path / "below a file")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--database", "sqlite:////data/runs.db"), "/data/runs.key"),
        (("--database", "sqlite:///runs.db?timeout=5"), "runs.key"),
        (("--database", "postgresql://me@db/runs", "--blobs", "/data/blobs"), "/data/aggregator.key"),
        (("--key", "/keys/own.pem"), "/keys/own.pem"),
    ],
)
def test_the_key_lies_beside_the_database_unless_it_is_named(flags, expected):
    assert str(read_settings(flags, {}).key) == expected
