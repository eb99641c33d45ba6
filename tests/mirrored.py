"""The mirror of a whole run, made by hand: what the sites and the aggregator would have signed."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deerfield import mirror
from deerfield.attestation import sign
from deerfield.exchange import Key
from deerfield.mirror import Mirror, Taker
from deerfield.privacy import epsilon
from deerfield.runspec import RunSpec
from deerfield.strategies import make
from deerfield.types import Attestation, Spend
from tests.attesting import key_of

AGGREGATOR = key_of("the aggregator")
Change = Callable[[Attestation], Attestation]


def run_mirror(spec: RunSpec, noise_multiplier: float = 4.0, change: Change = lambda found: found) -> list[Mirror]:
    """One object for each phase of `spec`; `change` is made to each attestation before its site signs it."""
    declares = make(spec).declares
    places = [(round_, phase) for round_ in range(declares.rounds) for phase in range(len(declares.phases))]
    found = []
    for step, (round_, phase) in enumerate(places):
        key = Key(run="a-run", incarnation=1, round=round_, phase=phase)
        said = [change(attestation(spec, site, key, step, noise_multiplier)) for site in spec.federation.sites]
        found.append(phase_mirror(spec, key, [sign(key_of(each.site), each) for each in said]))
    return found


def attestation(spec: RunSpec, site: str, key: Key, step: int, noise_multiplier: float) -> Attestation:
    """What a site says, unsigned, of the phase number `step`: entry 1 opened the ledger, 2 reserved the run."""
    declares, privacy = make(spec).declares, spec.privacy
    steps = spec.releases(declares.epochs)
    spend = Spend(
        unit=privacy.unit,
        noise_multiplier=noise_multiplier,
        sample_rate=spec.release_rate,
        steps=steps,
        clip=privacy.clip or float("inf"),
    )
    return Attestation(
        site=site,
        population=spec.population,
        run=key.run,
        incarnation=key.incarnation,
        round=key.round,
        phase=key.phase,
        update=digest(f"update {site} {key}"),
        spend=spend,
        accountant="dp-accounting PLD",
        epsilon_before=0.25,
        epsilon_after=0.25 + epsilon([spend] * declares.rounds * len(declares.phases), privacy.delta),
        delta_after=privacy.delta,
        ledger_sequence=4 + 2 * step,
        ledger_head=digest(f"entry {site} {key}"),
        data_commitment=digest(f"the data of {site}"),
    )


def phase_mirror(
    spec: RunSpec,
    key: Key,
    attestations: list[Attestation],
    vouching: Ed25519PrivateKey = AGGREGATOR,
    **changes: object,
) -> Mirror:
    """A phase with these attestations, whose sites have all taken it, signed by the aggregator after the `changes`."""
    epochs = make(spec).declares.epochs
    plain = Mirror(
        key=key,
        spec=spec.sha256,
        digest=digest(f"state {key}"),
        restores=0,
        took=tuple(Taker(site=each.site, epochs=epochs) for each in attestations),
        sealed=(),
    )
    return mirror.signed(vouching, replace(plain, **changes), attestations)


def digest(text: str) -> str:
    """The sha256 of a text, hex."""
    return sha256(text.encode()).hexdigest()
