"""One good value of each kind that travels."""

from math import inf

from deerfield.attestation import countersign, sign
from deerfield.exchange import Announcement, Event, Key, Offer, RunView, UploadStatus
from deerfield.manifest import describe
from deerfield.roster import KnownSite, PopulationReport, SiteReport
from deerfield.types import Attestation, Spend
from tests.attesting import key_of
from tests.fakes import adapter, run_spec

KEY = Key(run="run-1", incarnation=1, round=2, phase=1)
MANIFEST = describe(adapter(0))
SPEND = Spend(unit="record", noise_multiplier=1.5, sample_rate=0.125, steps=8, clip=1.0)
OFFER = Offer(key=KEY, spec=run_spec("north"), factors="B", epochs=1, start=MANIFEST)
ATTESTATION = sign(
    key_of("north"),
    Attestation(
        site="north",
        population="patients",
        run=KEY.run,
        incarnation=KEY.incarnation,
        round=KEY.round,
        phase=KEY.phase,
        update=MANIFEST.digest,
        spend=SPEND,
        accountant="dp-accounting PLD",
        epsilon_before=0.5,
        epsilon_after=inf,
        delta_after=1e-6,
        ledger_sequence=7,
        ledger_head="ab" * 32,
    ),
)
HEAD = countersign(key_of("the aggregator"), ATTESTATION)
ANNOUNCEMENT = Announcement(manifest=MANIFEST, base="0" * 64, attestation=ATTESTATION, metrics={"loss": 0.5})
STATUS = UploadStatus(announced=True, sealed=True, digest="0" * 64, missing=frozenset(["ab" * 32]), head=HEAD)
VIEW = RunView(
    run="run-1",
    state="FINISHED",
    reason="",
    spec=run_spec("north"),
    round=2,
    phase=0,
    model=MANIFEST,
    personal={"north": MANIFEST},
)
EVENT = Event(number=3, run="run-1", kind="lost", detail={"site": "north", "silent_s": 61.5}, time=12.5)
POPULATION = PopulationReport(name="notes", commitment="ab" * 32, unit="patient", units_low=200, units_high=400)
KNOWN = KnownSite(
    site="north", protocol=4, build="0.1.0", report=SiteReport(populations=(POPULATION,)), said_at=1.5, heard_at=2.5
)


def over_the_wire(message):
    return type(message).FromString(message.SerializeToString())
