"""What MLflow holds of a run's ledgers and of where it comes from, over a real MLflow database and folder."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import pytest

import deerfield
from deerfield import mirror
from deerfield.attestation import public_key, sign
from deerfield.proof import prove
from deerfield.runspec import Privacy, RunSpec
from pipelines.embedded.simulation import LocalLink
from services.aggregator.ledger_mirror import run_mirror
from services.aggregator.lineage import code_sha256
from tests.attesting import key_of
from tests.fakes import TeachingSite, adapter, run_spec
from tests.integration.aggregator.teaching import finish
from tests.integration.aggregator.tracking.conftest import recorder
from tests.integration.federation import environment

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning",  # MLflow 3.17 on SQLAlchemy 2.1
)

ROOT = Path(deerfield.__file__).parents[1]
PRIVACY = Privacy(unit="record", epsilon=3.0, clip=1.0, sample_rate=0.5)


def tracked_run(client, name="teaching run"):
    (found,) = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    return found


def files(client, tracked, folder="ledger"):
    """Where the artifacts of a folder are on this disk, by name."""
    listed = client.list_artifacts(tracked.info.run_id, folder)
    return {Path(each.path).name: Path(client.download_artifacts(tracked.info.run_id, each.path)) for each in listed}


def read(found):
    return [json.loads(path.read_text()) for path in found.values()]


def tell_again(aggregator, folder, clock):
    """As after a crash that lost how far the recorder was."""
    with aggregator.desk.store.edge() as edge:
        edge.set_cursor("tracking", 0)
    record, _ = recorder(aggregator, folder, clock)
    record.drain()


def test_what_a_run_leaves_in_mlflow_proves_what_it_cost(aggregator, tmp_path, clock):
    finish(aggregator, run_spec("north", "south", rounds=2, privacy=PRIVACY))
    record, client = recorder(aggregator, tmp_path, clock)
    record.drain()
    tracked = tracked_run(client)
    found = files(client, tracked)
    assert sorted(found) == [f"{step:06d}.json" for step in range(4)]
    spec = RunSpec.model_validate_json(Path(client.download_artifacts(tracked.info.run_id, "run.json")).read_text())
    keys = {site: public_key(key_of(site)) for site in ("north", "south")}
    proof = prove(read(found), spec, aggregator_key=public_key(aggregator.desk.key), site_keys=keys)
    assert (proof.verified, proof.findings, proof.notes) == (True, (), ())
    tags = client.get_model_version_by_alias("teaching run", "candidate").tags
    for site in ("north", "south"):
        assert proof.epsilon[site] == pytest.approx(float(tags[f"deerfield.epsilon.{site}"]), rel=1e-5)
        assert proof.total[site] == tracked.data.metrics[f"privacy/epsilon_total/{site}"]
    assert read(found)[-1]["digest"] == tags["deerfield.digest"]


def test_the_documented_program_verifies_what_mlflow_lets_one_download(aggregator, tmp_path, clock):
    finish(aggregator, run_spec("north", rounds=1, strategy="fedavg", privacy=PRIVACY))
    record, client = recorder(aggregator, tmp_path, clock)
    record.drain()
    folder = tmp_path / "downloaded"
    folder.mkdir()
    client.download_artifacts(tracked_run(client).info.run_id, "", str(folder))
    program = (ROOT / "docs/proof.md").read_text().split("```python\n")[1].split("```")[0]
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.startswith("verified\n{'north': "), done.stderr


def test_an_object_is_never_written_over_and_a_torn_one_is_completed(aggregator, tmp_path, clock):
    run = finish(aggregator, run_spec("north", rounds=1, strategy="fedavg", privacy=PRIVACY))
    record, _ = recorder(aggregator, tmp_path, clock)
    record.drain()
    (path,) = (tmp_path / "artifacts").rglob("ledger/000000.json")
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    tell_again(aggregator, tmp_path, clock)
    assert path.read_bytes() == whole
    kinds = [event.kind for event in aggregator.runs.events(run, 0)]
    assert "tracking_failed" not in kinds
    changed = whole.replace(b'"noise_multiplier": 4.0', b'"noise_multiplier": 9.0')
    path.write_bytes(changed)
    tell_again(aggregator, tmp_path, clock)
    (failed,) = [event.detail for event in aggregator.runs.events(run, 0) if event.kind == "tracking_failed"]
    assert "artifact ledger/000000.json of MLflow run" in failed["reason"]
    assert path.read_bytes() == changed  # for whoever looks into it


def test_a_site_that_took_a_task_and_did_not_answer_is_in_the_mirror(aggregator, tmp_path, clock):
    spec = run_spec("north", "south", rounds=1, quorum=1, strategy="fedavg", deadline_s=10.0, privacy=PRIVACY)
    run = aggregator.runs.start(spec, "once")
    north, south = (TeachingSite(n, LocalLink(aggregator, n, run), adapter(1), 4.0) for n in ("north", "south"))
    assert south.link.next_task()
    north.step()
    aggregator.coordinator.close_due()
    clock.advance(11)
    assert aggregator.coordinator.close_due() == 1
    record, client = recorder(aggregator, tmp_path, clock)
    with aggregator.desk.store.edge() as edge:
        edge.set_cursor("tracking", 0)
        stored = edge.run(run).spec
    record.drain()
    (found,) = read(files(client, tracked_run(client)))
    assert [taker["site"] for taker in found["took"]] == ["north", "south"]
    assert [each["attestation"]["site"] for each in found["sealed"]] == ["north"]
    proof = prove([found], stored)
    assert (proof.verified, proof.epsilon["south"]) == (True, float("inf"))
    assert "took tasks and sealed no update" in proof.notes[0]


def test_the_lineage_names_run_file_code_base_and_commitments_from_the_end_on(aggregator, tmp_path, clock):
    spec = run_spec("north", "south", rounds=1, strategy="fedavg")
    run = aggregator.runs.start(spec, "once")
    record, client = recorder(aggregator, tmp_path, clock)
    record.drain()
    tracked = tracked_run(client)
    (begun,) = read({"": Path(client.download_artifacts(tracked.info.run_id, "lineage.json"))})
    with aggregator.desk.store.edge() as edge:
        stored = edge.run(run).spec
    assert (begun["run_file"], begun["commitments"], begun["manifest"]) == (stored.sha256, {}, None)
    assert tracked.data.tags["deerfield.version"] == begun["code"] == deerfield.__version__
    assert tracked.data.tags["deerfield.code_sha256"] == begun["code_sha256"] == code_sha256()
    part = {"units": 1, "examples": 1, "labels": {"yes": 1}, "sha256": "ab" * 32, "part": "south.csv"}
    manifest = {
        "schema": 1,
        "kind": "simulation",
        "sites": {"north": part, "south": part},
        "test": {"sha256": "cd" * 32},
    }
    client.log_dict(tracked.info.run_id, manifest, "manifest.json")
    attached = Path(client.download_artifacts(tracked.info.run_id, "manifest.json")).read_bytes()
    finish_on(aggregator, run, spec)
    record.drain()
    (ended,) = read({"": Path(client.download_artifacts(tracked.info.run_id, "lineage.json"))})
    commitments = {site: sha256(f"the data of {site}".encode()).hexdigest() for site in ("north", "south")}
    assert (ended["commitments"], ended["earlier_commitments"]) == (commitments, {})
    assert (ended["kind"], ended["manifest"]) == ("simulation", sha256(attached).hexdigest())
    assert ended["hub"] == {"north": "ab" * 32, "south": "ab" * 32, "test": "cd" * 32}


def finish_on(aggregator, run, spec):
    sites = [TeachingSite(n, LocalLink(aggregator, n, run), adapter(1)) for n in spec.federation.sites]
    while aggregator.runs.get(run).state == "RUNNING":
        for site in sites:
            site.step()
        closing = aggregator.coordinator.due()
        aggregator.coordinator.publish(closing, closing.compute())


@pytest.mark.parametrize("content", ["no JSON", "[]", '{"sites": 3}', '{"kind": "simulation", "sites": {"north": 1}}'])
def test_a_manifest_of_another_form_is_named_by_its_hash_alone(aggregator, tmp_path, clock, content):
    spec = run_spec("north", rounds=1, strategy="fedavg")
    run = aggregator.runs.start(spec, "once")
    record, client = recorder(aggregator, tmp_path, clock)
    record.drain()
    tracked = tracked_run(client)
    client.log_text(tracked.info.run_id, content, "manifest.json")
    finish_on(aggregator, run, spec)
    record.drain()
    (found,) = read({"": Path(client.download_artifacts(tracked.info.run_id, "lineage.json"))})
    assert (found["manifest"], found["kind"], found["hub"]) == (sha256(content.encode()).hexdigest(), "", {})


def test_the_same_phase_gives_the_same_bytes(aggregator):
    from services.aggregator.ledger_mirror import phase_mirror

    run = finish(aggregator, run_spec("north", rounds=1, strategy="fedavg"))
    with aggregator.desk.store.edge() as edge:
        row = edge.run(run)
    one, two = (mirror.encode(phase_mirror(aggregator.desk, row, (0, 0))) for _ in range(2))
    assert one == two
    with pytest.raises(LookupError, match="has published nothing"):
        phase_mirror(aggregator.desk, row, (7, 0))


@dataclass
class Resigning(TeachingSite):
    """A site that signs by another key than it began with."""

    key: str = ""

    def update(self, assignment):
        found = super().update(assignment)
        return replace(found, attestation=sign(key_of(self.key), found.attestation)) if self.key else found


def test_a_key_that_is_pinned_in_mid_run_is_in_the_mirror_and_the_proof_goes_on(aggregator):
    run = aggregator.runs.start(run_spec("north", "south", rounds=2, privacy=PRIVACY), "once")
    sites = [Resigning(name, LocalLink(aggregator, name, run), adapter(0), 4.0) for name in ("north", "south")]
    with aggregator.desk.store.edge() as edge:
        row = edge.run(run)

    def phase():
        for site in sites:
            assert site.step()
        closing = aggregator.coordinator.due()
        aggregator.coordinator.publish(closing, closing.compute())

    phase()
    before = run_mirror(aggregator.desk, row)
    aggregator.runs.repin("north", public_key(key_of("anew")), "the disk of Dr. Okafor broke")
    sites[0].key = "anew"
    for _ in range(3):
        phase()
    found = run_mirror(aggregator.desk, row)
    assert found[:1] == before
    assert "repinned" not in found[0]
    old, new = public_key(key_of("north")), public_key(key_of("anew"))
    assert found[1]["repinned"] == [{"site": "north", "before": old, "public_key": new}]
    assert "Okafor" not in json.dumps(found)
    proof = prove(found, row.spec, aggregator_key=public_key(aggregator.desk.key))
    assert (proof.verified, len(proof.notes), proof.epsilon["north"] < 3) == (True, 1, True)
