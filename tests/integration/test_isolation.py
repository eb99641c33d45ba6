"""What leaves a site in a whole run, captured at the wire: no property of its data changes anything but the release."""

import shutil
from functools import partial

import grpc
import pytest
import structlog

from deerfield import keyfile
from deerfield.randomness import SeededRandomness
from deerfield.wire import federation_pb2 as pb
from deerfield.wire.channel import connect
from deerfield.wire.client import SiteClient
from services.client import workbench
from services.client.custody.custody import Custody
from services.client.policy import Policy
from services.client.reporting import site_report
from services.client.site import Site
from services.client.training import backbones, models
from tests.fakes import Clock
from tests.integration.aggregator.conftest import open_aggregator, served
from tests.unit.client import tiny

PATIENTS = [f"patient{number}" for number in range(30)]
ROWS = [
    (patient, f"{tiny.LABELS[number % 3]} {tiny.WORDS[5 + number % 4]} {turn}", tiny.LABELS[number % 3])
    for number, patient in enumerate(PATIENTS)
    for turn in range(2)
]
DATA = {
    "as it is": ROWS,
    "one patient removed": [row for row in ROWS if row[0] != "patient3"],
    "a patient with too many examples": [*ROWS, *([("patient3", "rash again", "rash")] * 40)],
    "examples that cannot be used": [*ROWS, ("patient3", "", "rash"), ("patient4", "fever", "plague")],
    "fewer patients than units_low": ROWS[:12],
    "a single example": ROWS[:1],
    "no example at all": [],
}
REQUESTS = {
    "BeginUpload": pb.BeginUploadRequest,
    "PutChunks": pb.Chunk,
    "Commit": pb.CommitRequest,
    "NextTask": pb.NextTaskRequest,
    "LedgerHead": pb.LedgerHeadRequest,
    "GetChunks": pb.GetChunksRequest,
    "Hello": pb.HelloRequest,
}


class Wire(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamUnaryClientInterceptor):
    """Keeps every message that leaves, in order, as its bytes."""

    def __init__(self):
        self.messages: list[tuple[str, bytes]] = []

    def _note(self, details, request):
        self.messages.append((details.method.rsplit("/", 1)[1], request.SerializeToString(deterministic=True)))
        return request

    def intercept_unary_unary(self, proceed, details, request):
        return proceed(details, self._note(details, request))

    intercept_unary_stream = intercept_unary_unary

    def intercept_stream_unary(self, proceed, details, requests):
        return proceed(details, (self._note(details, request) for request in requests))


def policy(folder, base, **changes):
    population = {
        "source": {"path": str(folder / "notes.csv"), "patient": "patient"},
        "unit": "patient",
        "epsilon": 20.0,
        "units_low": 25,
        "units_high": 60,
        "validation": 0.2 if changes.get("metrics") == "dp" else 0.0,
        "registration": "on_start",  # a person would not register some of these data, and nothing may show it
    }
    return Policy.model_validate({"populations": {"p": population}, "models": {base[1]: str(base[0])}, **changes})


def seeded(spec, site, task):
    """One sampler and one noise for every data set: what differs then is made by the data."""
    return SeededRandomness("sampling", task.round, task.phase), SeededRandomness("noise", task.round, task.phase)


def sent(folder, base, rows, strategy="deer", **changes):
    """Every message that leaves a site that takes part in a run with these data."""
    folder.mkdir()
    (folder / "notes.csv").write_text(
        "patient,text,label\n" + "".join(f"{patient},{text},{label}\n" for patient, text, label in rows)
    )
    shutil.copytree(base[2], folder / "state")
    rules, clock, wire = policy(folder, base, **changes), Clock(), Wire()
    aggregator = open_aggregator(folder / "aggregator", clock)
    with served(aggregator) as server, Custody("north", rules, folder / "state", clock=clock) as custody:
        run = server.runs.start(spec(base, strategy), "isolation")
        channel = connect(server.ports.listening, role="site", site="north")
        with grpc.intercept_channel(channel, wire) as tapped:

            def build(asked):
                bench = workbench.build("north", rules, custody.split_key, asked)
                bench.draws = seeded
                return bench

            link = SiteClient(tapped, run=run)
            link.hello(site_report(rules, folder / "state"))
            Site(name="north", link=link, account=custody.account, build=build, beats=False).serve()
        assert server.runs.get(run).state == "FINISHED"
    aggregator.desk.store.close()
    return [(name, message.replace(run.encode(), b"R" * len(run))) for name, message in wire.messages]


def spec(base, strategy):
    made = tiny.spec("bert", privacy={"unit": "patient", "epsilon": 2.0, "examples_per_unit": 2, "sample_rate": 0.5})
    classifier = models.load(base[0], made)
    found = {
        **made.model_dump(),
        "rounds": 1,
        "strategy": {"name": strategy},
        "adapter": classifier.schema(),
        "convolutions": classifier.convolutions(),
        "federation": {"sites": ["north"]},
    }
    found["model"]["digest"] = base[1]
    return type(made).model_validate(found)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """(folder, digest, state): a base model, and a site's key and secret, the same for every data set."""
    folder, state = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("keys") / "state"
    tiny.save("bert", folder)
    keyfile.load(state / keyfile.SITE)
    (state / "split.key").write_bytes(bytes(32))
    return folder, backbones.digest(folder), state


@pytest.fixture(scope="module", params=["none", "dp"])
def whole(request, base, tmp_path_factory):
    """The messages of the whole data set, and a way to get those of another."""
    with structlog.testing.capture_logs():
        run = partial(sent, base=base, metrics=request.param)
        yield run(tmp_path_factory.mktemp("whole") / "site", rows=DATA["as it is"]), run


@pytest.mark.parametrize("name", [name for name in DATA if name != "as it is"])
def test_all_that_differs_between_two_data_sets_is_the_release(whole, tmp_path, name):
    messages, run = whole
    others = run(tmp_path / "site", rows=DATA[name])
    assert [(call, len(message)) for call, message in others] == [(call, len(message)) for call, message in messages]
    for ours, theirs in zip(others, messages, strict=True):
        assert _public(*ours) == _public(*theirs)
    changed = {call for (call, one), (_, other) in zip(messages, others, strict=True) if one != other}
    assert changed <= {"BeginUpload", "PutChunks", "Commit", "GetChunks"}


def test_the_release_does_depend_on_the_data(whole, tmp_path):
    """Or the test above would compare nothing."""
    messages, run = whole
    others = run(tmp_path / "site", rows=DATA["one patient removed"])
    assert any(one != other for (call, one), (_, other) in zip(messages, others, strict=True) if call == "PutChunks")
    again = run(tmp_path / "again", rows=DATA["as it is"])
    assert [m for c, m in again if c == "PutChunks"] == [m for c, m in messages if c == "PutChunks"]


def test_of_models_that_a_site_only_scores_no_more_than_noised_counts_depends_on_its_data(base, tmp_path):
    with structlog.testing.capture_logs():
        one, other = (
            sent(tmp_path / name, base, DATA[name], strategy="evaluate", metrics="dp")
            for name in ("as it is", "one patient removed")
        )
    (said,) = [pb.BeginUploadRequest.FromString(message) for call, message in one if call == "BeginUpload"]
    assert (sorted(said.metrics), len(said.manifest.tensors)) == (["accuracy", "f1"], 0)
    assert [(call, len(message)) for call, message in other] == [(call, len(message)) for call, message in one]
    assert [_public(*each) for each in other] == [_public(*each) for each in one]
    assert {call for (call, ours), (_, theirs) in zip(one, other, strict=True) if ours != theirs} == {"BeginUpload"}


def _public(call, message):
    """A message without the release, its noised scores and what is computed from them: hashes, head, signature."""
    found = REQUESTS[call].FromString(message)
    if call == "BeginUpload":
        for tensor in found.manifest.tensors:
            tensor.chunks[:] = [b""] * len(tensor.chunks)
        found.manifest.digest = found.attestation.update = found.base = ""
        # under a secret of 32 random bytes, and as much a part of the ledger's head, a commitment tells nobody anything
        found.attestation.data_commitment = b""
        found.attestation.ledger_head = found.attestation.signature = type(found.attestation.signature)()
        for metric in list(found.metrics):  # a map written to while it is read leaves entries out
            found.metrics[metric] = 0.0
    elif call == "PutChunks":
        found.Clear()
    elif call == "Commit":
        found.digest = ""
    elif call == "GetChunks":  # what the aggregator made of the release before
        found.sha256[:] = [b""] * len(found.sha256)
    return found
