"""What a run's mirror proves, and that nothing in it can be changed, dropped, doubled or signed by somebody else."""

import json
from dataclasses import replace
from math import inf

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from deerfield import mirror
from deerfield.attestation import public_key, sign, verify, verify_head
from deerfield.errors import BadAttestation, InvalidInput
from deerfield.exchange import Key
from deerfield.mirror import Repinned, Taker
from deerfield.privacy import epsilon
from deerfield.proof import prove
from deerfield.runspec import Privacy
from deerfield.types import Spend
from tests.attesting import key_of
from tests.fakes import run_spec
from tests.mirrored import AGGREGATOR, digest, phase_mirror, run_mirror
from tests.unit.wire.test_signed import ATTESTATIONS

PRIVACY = Privacy(unit="record", epsilon=3.0, clip=1.0, sample_rate=0.5)
SPEC = run_spec("north", "south", rounds=2, privacy=PRIVACY)
RUN = run_mirror(SPEC)
COST = epsilon([Spend(unit="record", noise_multiplier=4.0, sample_rate=0.5, steps=8, clip=1.0)], PRIVACY.delta)


def documents(found=RUN):
    """As they are read back from their files."""
    return [json.loads(mirror.encode(each)) for each in found]


def resigned(step, change, key=None):
    """The run, with north's attestation of one phase changed and signed again by everybody."""
    old = RUN[step]
    north, south = (each.attestation for each in old.sealed)
    changed = sign(key or key_of("north"), change(north))
    return documents([*RUN[:step], phase_mirror(SPEC, old.key, [changed, south]), *RUN[step + 1 :]])


def refused(found, says, **known):
    """The proof of a mirror in which something is wrong, and says what."""
    proof = prove(found, known.pop("spec", SPEC), **known)
    assert not proof.verified
    assert any(says in each for each in proof.findings), proof.findings
    assert all("\n" not in each for each in proof.findings)
    return proof


# --- the object ---


def test_every_signature_verifies_again_from_the_file():
    for each in RUN:
        read = mirror.parse(json.loads(mirror.encode(each)))
        assert read == each
        assert mirror.encode(read) == mirror.encode(each)
        mirror.verify(read)
        for sealed in read.sealed:
            verify(sealed.attestation)
            verify_head(sealed.head, SPEC.population)


@given(ATTESTATIONS, st.integers(0, 2**62))
def test_whatever_a_site_signs_verifies_again_from_the_file(unsigned, restores):
    signed = sign(key_of("north"), unsigned)
    key = Key(run=signed.run, incarnation=signed.incarnation, round=signed.round, phase=signed.phase)
    whole = phase_mirror(SPEC, key, [signed], restores=restores)
    read = mirror.parse(json.loads(mirror.encode(whole)))
    assert read == whole
    mirror.verify(read)
    verify(read.sealed[0].attestation)
    verify_head(read.sealed[0].head, signed.population)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.data())
def test_any_content_in_the_place_of_any_part_is_a_finding_and_no_crash(data):
    found = documents()
    *above, last = data.draw(st.sampled_from(list(leaves(found[1]))))
    above = above[: data.draw(st.integers(0, len(above)))]
    place = found[1]
    for key in above:
        place = place[key]
    last = data.draw(st.sampled_from(list(place))) if isinstance(place, dict) else 0
    was, place[last] = place[last], data.draw(JSON)
    proof = prove(found, SPEC)
    assert was == place[last] or not proof.verified  # 4 is 4.0


def test_an_infinite_epsilon_and_clip_are_read_back():
    unprotected = run_spec("north", rounds=1)
    for each in run_mirror(unprotected, 0.0):
        text = mirror.encode(each)
        assert b"Infinity" not in text
        read = mirror.parse(json.loads(text))
        assert (read, read.sealed[0].attestation.epsilon_after) == (each, inf)


def test_a_site_may_be_called_like_a_number():
    named = run_spec("clip", "epsilon_after", rounds=1, privacy=PRIVACY)
    assert prove(documents(run_mirror(named)), named).verified


def test_no_object_is_named_like_another():
    names = {mirror.name(step, incarnation) for step in range(3) for incarnation in (1, 2, 1763000000)}
    assert len(names) == 9
    assert "ledger/000002.json" in names


def leaves(value, path=()):
    """The path of everything in a JSON document that is no container."""
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(each, (*path, key))
    else:
        yield path


def changed(value):
    if isinstance(value, str):
        return value[:-1] + ("0" if value[-1] != "0" else "1")
    return value + 1


@pytest.mark.parametrize("path", list(leaves(documents()[1])), ids=lambda path: ".".join(map(str, path)))
def test_no_field_can_be_changed(path):
    found = documents()
    *above, last = path
    place = found[1]
    for key in above:
        place = place[key]
    place[last] = changed(place[last])
    assert not prove(found, SPEC).verified
    del place[last]
    assert not prove(found, SPEC).verified


@pytest.mark.parametrize("broken", [None, [], "text", {}, {"schema": 2}, {"schema": 1}, {"schema": 1, "took": 3}])
def test_what_is_no_object_of_a_mirror_is_a_finding(broken):
    proof = refused([broken, *documents()], "object 1 of the mirror")
    assert set(proof.epsilon.values()) == {inf}
    with pytest.raises(InvalidInput):
        mirror.parse(broken)


@pytest.mark.parametrize("value", [float("nan"), inf, -1, True, "1", None, 1e400])
def test_a_number_that_cannot_be_is_a_finding(value):
    found = documents()
    found[0]["sealed"][0]["attestation"]["spend"]["noise_multiplier"] = value
    refused(found, "object 1 of the mirror")


# --- the proof ---


def test_a_whole_run_is_verified_and_its_epsilon_is_computed_again():
    proof = prove(documents(), SPEC)
    assert (proof.verified, proof.findings, proof.notes) == (True, (), ())
    assert proof.epsilon == {"north": pytest.approx(COST), "south": pytest.approx(COST)}
    assert proof.total["north"] == pytest.approx(0.25 + COST)
    assert prove(documents()[::-1], SPEC) == proof  # whatever the order of the files
    assert prove([*documents(), documents()[2]], SPEC) == proof  # read twice


def test_known_keys_are_held_against_those_that_signed():
    keys = {"north": public_key(key_of("north"))}
    assert prove(documents(), SPEC, aggregator_key=public_key(AGGREGATOR), site_keys=keys).verified
    refused(documents(), "signed by the aggregator's key", aggregator_key=public_key(key_of("another")))
    proof = refused(documents(), "site north signed with key", site_keys={"north": public_key(key_of("another"))})
    assert proof.epsilon["north"] == inf
    assert proof.epsilon["south"] == pytest.approx(COST)


def test_without_a_unit_a_run_may_be_verified_at_an_infinite_epsilon():
    unprotected = run_spec("north", rounds=1)
    proof = prove(documents(run_mirror(unprotected, 0.0)), unprotected)
    assert (proof.verified, proof.epsilon) == (True, {"north": inf})
    assert "unit is none" in proof.notes[0]


@pytest.mark.parametrize("step", range(4))
def test_a_phase_that_is_not_there_makes_every_epsilon_infinite(step):
    found = documents()
    del found[step]
    proof = refused(found, f"round {step // 2}, phase {step % 2}: no record of it")
    assert proof.epsilon == {"north": inf, "south": inf}


def test_an_empty_mirror_proves_nothing():
    assert refused([], "round 0, phase 0").epsilon == {"north": inf, "south": inf}


def test_a_phase_beyond_the_run_or_of_another_run_or_run_file_is_a_finding():
    longer = run_spec("north", "south", rounds=3, privacy=PRIVACY)
    refused(documents(run_mirror(longer)), "another run file")
    key = replace(RUN[0].key, round=2)
    refused(documents([*RUN, phase_mirror(SPEC, key, [])]), "the run has no such phase")
    refused(documents([*RUN, phase_mirror(SPEC, replace(key, run="yesterday"), [])]), "it is of run yesterday")


def test_a_site_that_is_missing_from_a_phase_is_a_finding_unless_the_quorum_holds():
    fewer = phase_mirror(SPEC, RUN[1].key, [RUN[1].sealed[0].attestation])
    refused(documents([RUN[0], fewer, *RUN[2:]]), "1 updates, the quorum is 2; missing: south")
    lenient = run_spec("north", "south", rounds=2, quorum=1, privacy=PRIVACY)
    whole = run_mirror(lenient)
    for took, cost in ((whole[1].took, COST), (whole[1].took[:1], None)):
        alone = phase_mirror(lenient, whole[1].key, [whole[1].sealed[0].attestation], took=took)
        proof = prove(documents([whole[0], alone, *whole[2:]]), lenient)
        assert proof.verified
        # what it took counts, whether or not it was sealed
        assert proof.epsilon["south"] == pytest.approx(cost) if cost else proof.epsilon["south"] < COST


def test_a_site_that_took_tasks_and_never_sealed_costs_infinity_and_one_that_took_none_nothing():
    lenient = run_spec("north", "south", rounds=2, quorum=1, privacy=PRIVACY)
    for took, cost in (((Taker(site="south", epochs=1),), inf), ((), 0.0)):
        found = [
            phase_mirror(lenient, each.key, [each.sealed[0].attestation], took=(each.took[0], *took))
            for each in run_mirror(lenient)
        ]
        proof = prove(documents(found), lenient)
        assert (proof.verified, proof.epsilon["south"]) == (True, cost)
        assert len(proof.notes) == len(took)


def test_a_replayed_head_is_a_finding():
    earlier = RUN[1].sealed[0].attestation
    place = {"ledger_sequence": earlier.ledger_sequence, "ledger_head": earlier.ledger_head}
    proof = refused(resigned(2, lambda north: replace(north, **place)), "the head is replayed")
    assert proof.epsilon == {"north": inf, "south": pytest.approx(COST)}


def test_a_ledger_that_goes_back_is_a_finding():
    refused(resigned(2, lambda north: replace(north, ledger_sequence=5)), "is not after entry 6")
    refused(resigned(3, lambda north: replace(north, epsilon_after=0.3)), "what is spent stays spent")


def repinned(*steps, until=4):
    """The run, in which north signs by another key from phase 2 on, and each record from then on names the `steps`."""
    told = []
    for each in RUN[2:until]:
        north, south = (sealed.attestation for sealed in each.sealed)
        told.append(phase_mirror(SPEC, each.key, [sign(ANEW, north), south], repinned=steps))
    return documents([*RUN[:2], *told, *RUN[until:]])


OLD, ANEW, BETWEEN = key_of("north"), key_of("north anew"), key_of("north in between")


def step(before, after, site="north"):
    return Repinned(site=site, before=public_key(before) if before else "", public_key=public_key(after))


@pytest.mark.parametrize(
    "steps", [(step(OLD, ANEW),), (step(OLD, BETWEEN), step(key_of("south"), OLD, "south"), step(BETWEEN, ANEW))]
)
def test_a_key_that_an_operator_pinned_in_mid_run_is_a_note(steps):
    proof = prove(repinned(*steps), SPEC)
    assert (proof.verified, proof.findings, dict(proof.epsilon)) == (True, (), dict(prove(documents(), SPEC).epsilon))
    (note,) = proof.notes
    assert f"site north signed with key {public_key(OLD)[:16]}..., from round 1, phase 0" in note
    assert f"on with {public_key(ANEW)[:16]}..., which an operator has pinned" in note


@pytest.mark.parametrize(
    "steps",
    [
        (),
        (step(BETWEEN, ANEW),),
        (step(OLD, BETWEEN),),
        (step(BETWEEN, ANEW), step(OLD, BETWEEN)),
        (step(OLD, ANEW, "south"),),
        (step(None, ANEW),),
    ],
)
def test_a_key_that_does_not_go_on_from_the_one_before_is_a_finding(steps):
    proof = refused(repinned(*steps), "its first attestation was by")
    assert proof.epsilon["north"] == inf


def test_a_key_that_was_left_does_not_come_back_by_itself():
    refused(repinned(step(OLD, ANEW), until=3), "its first attestation was by")
    whole = repinned(step(OLD, ANEW), until=3)
    north, south = (sealed.attestation for sealed in RUN[3].sealed)
    back = phase_mirror(SPEC, RUN[3].key, [north, south], repinned=(step(OLD, ANEW), step(ANEW, OLD)))
    assert prove([*whole[:3], *documents([back])], SPEC).verified


def test_a_key_that_the_consortium_has_named_is_not_pinned_away():
    named = {"north": public_key(OLD)}
    refused(repinned(step(OLD, ANEW)), "its first attestation was by", site_keys=named)
    refused(repinned(step(OLD, ANEW)), "its first attestation was by", site_keys={"north": public_key(ANEW)})
    assert prove(repinned(step(OLD, ANEW)), SPEC, site_keys={"south": public_key(key_of("south"))}).verified


def test_nobody_but_the_aggregator_says_that_a_key_was_pinned():
    found = repinned()
    for document in found[2:]:
        document["repinned"] = [{"site": "north", "before": public_key(OLD), "public_key": public_key(ANEW)}]
    refused(found, "is not signed by the aggregator's key")


def test_a_site_that_signs_with_a_foreign_key_is_a_finding():
    proof = refused(resigned(2, lambda north: north, Ed25519PrivateKey.generate()), "its first attestation was by")
    assert proof.epsilon["north"] == inf


def test_an_aggregator_with_a_foreign_key_is_a_finding():
    foreign = Ed25519PrivateKey.generate()
    other = phase_mirror(SPEC, RUN[2].key, [each.attestation for each in RUN[2].sealed], foreign)
    refused(documents([*RUN[:2], other, RUN[3]]), "signed by the aggregator's key")


def test_a_head_that_somebody_else_countersigned_is_a_finding():
    foreign = Ed25519PrivateKey.generate()
    theirs = phase_mirror(SPEC, RUN[2].key, [each.attestation for each in RUN[2].sealed], foreign)
    mixed = replace(RUN[2], sealed=theirs.sealed)
    vouched = replace(mixed, signature=AGGREGATOR.sign(mirror._statement(mixed)).hex())
    refused(documents([*RUN[:2], vouched, RUN[3]]), "its head is countersigned by another key")


def test_two_records_of_one_phase_are_a_finding():
    other = phase_mirror(SPEC, RUN[2].key, [each.attestation for each in RUN[2].sealed], digest=digest("another"))
    refused(documents([*RUN, other]), "there are two that differ")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"population": "staff"}, "of population staff"),
        ({"round": 0}, "of round 0"),
        ({"run": "yesterday"}, "of run yesterday"),
        ({"accountant": "guess"}, "counted by 'guess'"),
        ({"epsilon_before": 9.0}, "falls from 9"),
    ],
)
def test_an_attestation_of_something_else_is_a_finding(changes, says):
    refused(resigned(2, lambda north: replace(north, **changes)), says)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"noise_multiplier": 0.5}, "the run allows 3"),
        ({"sample_rate": 0.25}, "the run says"),
        ({"steps": 1}, "the run says"),
        ({"clip": 2.0}, "the run says"),
        ({"unit": "patient"}, "the run says"),
    ],
)
def test_a_spend_that_the_run_does_not_allow_is_a_finding(changes, says):
    found = resigned(2, lambda north: replace(north, spend=replace(north.spend, **changes)))
    assert refused(found, says).epsilon["north"] == inf


def test_a_ledger_that_was_charged_less_than_the_updates_cost_is_a_finding():
    def modest(found):
        return replace(found, epsilon_after=0.25 + COST / 2)

    refused(documents(run_mirror(SPEC, change=modest)), "its ledger was charged")
    assert prove(documents(run_mirror(SPEC, change=lambda found: replace(found, epsilon_after=9.0))), SPEC).verified


def test_a_population_over_the_federations_lifetime_epsilon_is_a_finding():
    strict = SPEC.model_copy(update={"federation": SPEC.federation.model_copy(update={"lifetime_epsilon": 0.5})})
    refused(documents(run_mirror(strict)), "requires a lifetime epsilon of 0.5", spec=strict)


def test_after_a_restore_what_was_lost_counts_whole_and_the_phases_go_on():
    later = [replace(each.key, incarnation=1763000000) for each in RUN[2:]]

    def again(step, key):
        return [
            sign(
                key_of(each.attestation.site),
                replace(
                    each.attestation,
                    incarnation=key.incarnation,
                    update=digest(f"again {step}"),
                    ledger_sequence=50 + step,
                    ledger_head=digest(f"again {each.attestation.site} {step}"),
                    epsilon_before=0.25 + COST,
                    epsilon_after=0.25 + 2 * COST,
                    delta_after=2e-6,
                ),
            )
            for each in RUN[2 + step].sealed
        ]

    new = [phase_mirror(SPEC, key, again(step, key), restores=1) for step, key in enumerate(later)]
    proof = prove(documents([*RUN, *new]), SPEC)
    assert proof.findings == ()
    assert proof.epsilon["north"] > COST
    assert proof.total["north"] == pytest.approx(0.25 + 2 * COST)
    refused(documents([*RUN, new[0]]), "earlier incarnation")


def test_no_signature_of_one_kind_passes_for_another():
    head = RUN[0].sealed[0].head
    with pytest.raises(BadAttestation):
        mirror.verify(replace(RUN[0], signature=head.signature))
