"""Whether an attestation is about the update that it comes with, and goes on where its site's ledger was last seen.

The aggregator asks before it takes an update, and a proof asks again of what was kept.
"""

from deerfield.attestation import verify
from deerfield.budget import ROUNDING
from deerfield.errors import BadAttestation
from deerfield.exchange import Key
from deerfield.types import Attestation, Countersigned

SHOWN = 16  # characters of a key in a message


def check_attestation(attestation: Attestation, site: str, population: str, key: Key, update: str) -> None:
    """Holds an attestation against the call it came with, and against itself.

    Raises:
        BadAttestation: its signature is wrong, it is about something else, or its epsilon cannot be.
    """
    verify(attestation)
    agreed = {
        "site": site,
        "population": population,
        "run": key.run,
        "incarnation": key.incarnation,
        "round": key.round,
        "phase": key.phase,
        "update": update,
    }
    for name, value in agreed.items():
        if (told := getattr(attestation, name)) != value:
            raise BadAttestation(
                f"the attestation is of {name} {told}, the call is of {name} {value}; sign one for this very update"
            )
    before, after = attestation.epsilon_before, attestation.epsilon_after
    if after < before:
        raise BadAttestation(f"the attested epsilon falls from {before:g} to {after:g}; what is spent stays spent")


def check_follows(attestation: Attestation, pinned: str | None, known: Countersigned | None) -> None:
    """Holds an attestation against the key that is `pinned` for its site, and the newest head `known` of its ledger.

    Raises:
        BadAttestation: another key, a ledger entry that is neither the newest one attested before nor after it, or
            less spent than before.
    """
    site, population = attestation.site, attestation.population
    if pinned not in (None, attestation.public_key):
        raise BadAttestation(
            f"site {site} signed with key {attestation.public_key[:SHOWN]}..., its first attestation was by "
            f"{pinned[:SHOWN]}...; restore the site's key, or let an operator pin the new one"
        )
    if known is None or (attestation.ledger_sequence, attestation.ledger_head) == (known.sequence, known.head):
        return
    if attestation.ledger_sequence <= known.sequence:
        raise BadAttestation(
            f"entry {attestation.ledger_sequence} of the ledger of {population} at {site} is not after entry "
            f"{known.sequence}, which was attested before; if an old copy was restored, reconcile it"
        )
    # under the filter `renyi` no delta is used up, and its epsilon may fall with another delta of the policy
    fell = attestation.epsilon_after < known.epsilon_after * (1 - ROUNDING) and known.delta_after > 0
    if fell or attestation.delta_after < known.delta_after * (1 - ROUNDING):
        raise BadAttestation(
            f"the ledger of {population} at {site} falls from epsilon {known.epsilon_after:g}, delta "
            f"{known.delta_after:g} to {attestation.epsilon_after:g}, {attestation.delta_after:g}; what is spent stays "
            "spent"
        )
