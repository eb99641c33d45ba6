"""Real MLflow on a SQLite file: what a run leaves there, and whether its model can be used."""

import asyncio
import io
import json
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import numpy as np
import pytest

from deerfield import peft_folder
from deerfield.errors import InvalidInput
from deerfield.runspec import Privacy
from services.aggregator.rounds.patience import Patience
from services.aggregator.rounds.recorder import Recorder, Untracked
from services.aggregator.rpc.identity import from_metadata
from services.aggregator.server import serving
from services.aggregator.tracking import MlflowTracking
from tests.fakes import adapter, run_spec
from tests.integration.aggregator.conftest import ANY
from tests.integration.aggregator.processes import running, work
from tests.integration.aggregator.teaching import finish
from tests.integration.aggregator.tracking.conftest import recorder

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning",  # MLflow 3.17 on SQLAlchemy 2.1
)

RUN_WITHOUT_TORCH = """
import sys
HEAVY = ("torch", "peft", "opacus", "transformers")
for name in HEAVY:
    sys.modules[name] = None  # an import of it raises
import services.aggregator.__main__
from pathlib import Path
from services.aggregator.rounds.recorder import Recorder
from services.aggregator.tracking import MlflowTracking
from tests.fakes import Clock, run_spec
from tests.integration.aggregator.conftest import open_aggregator
from tests.integration.aggregator.teaching import finish
folder = Path(sys.argv[1])
aggregator = open_aggregator(folder, Clock())
finish(aggregator, run_spec("north", "south", rounds=1))
tracking = MlflowTracking(aggregator.desk, f"sqlite:///{folder / 'mlflow.db'}", str(folder / "artifacts"))
Recorder(aggregator.desk.store, tracking, Clock()).drain()
assert all(sys.modules.get(name) is None for name in HEAVY)
with aggregator.desk.store.edge() as edge:
    print([event.kind for event in edge.events(0)][-2:])
"""


def test_the_aggregator_registers_a_model_where_torch_cannot_be_imported(tmp_path):
    code = [sys.executable, "-c", RUN_WITHOUT_TORCH, str(tmp_path)]
    found = subprocess.run(code, check=False, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip().endswith("['registered', 'run_finished']")


def test_a_run_that_only_scores_models_registers_none(aggregator, tmp_path, clock):
    run = finish(aggregator, run_spec("north", "south", strategy="evaluate"))
    record, client = recorder(aggregator, tmp_path, clock)
    record.drain()
    assert [event.kind for event in aggregator.runs.events(run, 0)][-2:] == ["phase_published", "run_finished"]
    assert client.search_registered_models() == []
    (found,) = client.search_runs([client.get_experiment_by_name("teaching run").experiment_id])
    assert (found.info.status, found.data.tags["deerfield.run"]) == ("FINISHED", run)


def test_a_run_leaves_parameters_metrics_phases_and_one_version(aggregator, tmp_path, clock):
    privacy = Privacy(unit="record", epsilon=3.0, clip=1.0, sample_rate=0.5)
    run = finish(aggregator, run_spec("north", "south", rounds=2, privacy=privacy))
    for phase in ((0, 0), (1, 1)):
        aggregator.runs.evaluated(run, *phase, {"accuracy": 0.5 + phase[0] / 4})
    record, client = recorder(aggregator, tmp_path, clock)
    record.drain()
    registered, finished = [event.detail for event in aggregator.runs.events(run, 0)][-2:]
    assert registered == {"name": "teaching run", "version": "1"}
    version = client.get_model_version_by_alias("teaching run", "candidate")
    assert version.tags["deerfield.run"] == run
    assert version.tags["deerfield.digest"] == finished["digest"]
    assert 0 < float(version.tags["deerfield.epsilon.north"]) <= 3
    tracked = client.get_run(version.run_id)
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params["privacy.epsilon"] == "3.0"
    assert tracked.data.params["federation.sites"] == "north, south"
    assert tracked.data.metrics["evaluation/accuracy"] == 0.75
    assert tracked.data.metrics["bytes_up"] > 0
    spent = [
        (metric.step, metric.value) for metric in client.get_metric_history(version.run_id, "privacy/epsilon/south")
    ]
    assert [step for step, _ in spent] == [0, 1]  # by round, though deer has two phases
    assert spent == sorted(spent)
    assert len(client.get_metric_history(version.run_id, "privacy/epsilon_total/south")) == 2
    assert tracked.data.metrics["privacy/epsilon_total/north"] > 0
    assert tracked.data.metrics["privacy/epsilon/south"] == spent[-1][1]
    assert len(client.list_artifacts(version.run_id, "phases")) == 4
    model = client.get_logged_model(version.source.removeprefix("models:/"))
    assert (model.name, model.experiment_id, model.status) == ("adapter", tracked.info.experiment_id, "READY")
    assert Path(model.artifact_location).is_relative_to(tmp_path / "artifacts")
    assert model.params["privacy.epsilon"] == "3.0"


def test_telling_everything_twice_changes_nothing(aggregator, tmp_path, clock):
    run = finish(aggregator, run_spec("north", rounds=1))
    record, client = recorder(aggregator, tmp_path, clock)
    record.drain()
    with aggregator.desk.store.edge() as edge:
        edge.set_cursor("tracking", 0)  # as after a crash, and then some
    again, _ = recorder(aggregator, tmp_path, clock)
    again.drain()
    versions = client.search_model_versions("name = 'teaching run'")
    assert [version.version for version in versions] in (["1"], [1])
    assert len(client.get_metric_history(versions[0].run_id, "bytes_up")) == 2
    assert [e.kind for e in aggregator.runs.events(run, 0)].count("run_finished") == 1


def test_a_run_that_somebody_opened_is_adopted_once(aggregator, tmp_path, clock):
    _, client = recorder(aggregator, tmp_path, clock)
    opened = client.create_run(client.create_experiment("a pipeline", str(tmp_path / "artifacts"))).info.run_id
    first, second = (aggregator.runs.start(run_spec("north", name=name), name) for name in ("first", "second"))
    record, _ = recorder(aggregator, tmp_path, clock, adopted=opened)
    aggregator.runs.abort(first, "enough")
    record.drain()
    found = client.get_run(opened)
    assert (found.data.tags["deerfield.run"], found.info.status) == (first, "KILLED")
    (other,) = client.search_runs([client.get_experiment_by_name("second").experiment_id])
    assert other.data.tags["deerfield.run"] == second


def test_a_run_that_its_caller_has_open_is_adopted_and_stays_the_callers(aggregator, tmp_path, clock):
    """As the aggregator does with MLFLOW_RUN_ID; here even in the very process that has the run open."""
    import mlflow

    record, client = recorder(aggregator, tmp_path, clock)
    theirs = client.create_experiment("a pipeline", str(tmp_path / "artifacts"))
    with mlflow.start_run(experiment_id=theirs) as opened:
        mlflow.log_metric("theirs", 1.0)
        run = finish(aggregator, run_spec("north", rounds=1))
        record, _ = recorder(aggregator, tmp_path, clock, adopted=opened.info.run_id)
        record.drain()
        assert mlflow.active_run().info.run_id == opened.info.run_id
        mlflow.log_metric("theirs", 2.0)
    events = {event.kind: event.detail for event in aggregator.runs.events(run, 0)}
    assert "tracking_failed" not in events
    found = client.get_run(opened.info.run_id)
    assert (found.data.tags["deerfield.run"], found.info.status) == (run, "FINISHED")
    assert found.data.metrics["theirs"] == 2.0
    assert found.data.metrics["bytes_up"] > 0
    version = client.get_model_version("teaching run", events["registered"]["version"])
    assert version.run_id == opened.info.run_id
    assert {each.path for each in client.list_artifacts(opened.info.run_id)} >= {"ledger", "phases", "lineage.json"}


def test_an_aggregator_writes_into_the_run_that_mlflow_run_id_names_while_its_caller_has_it_open(tmp_path):
    import mlflow

    from tests.integration.federation import environment  # which imports torch: this module must not

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    theirs = mlflow.create_experiment("a pipeline", str(tmp_path / "artifacts"))
    with mlflow.start_run(experiment_id=theirs) as opened:
        told = environment() | {"MLFLOW_RUN_ID": opened.info.run_id}
        with running(tmp_path, "--tracking", uri, env=told) as aggregator, aggregator.runs() as runs:
            run = runs.start(run_spec("north", rounds=1), "once")
            with aggregator.site("north", run) as site:
                work(site)
            kinds = [event.kind for event in runs.watch(run)]
        assert ("registered" in kinds, "tracking_failed" in kinds) == (True, False)
        mlflow.log_metric("theirs", 2.0)
    found = mlflow.MlflowClient(uri).get_run(opened.info.run_id)
    assert (found.data.tags["deerfield.run"], found.data.metrics["theirs"]) == (run, 2.0)
    assert (found.info.status, found.data.metrics["bytes_up"] > 0) == ("FINISHED", True)


def test_a_tracking_server_that_is_away_costs_the_run_nothing(aggregator, clock):
    run = finish(aggregator, run_spec("north", rounds=1))

    class Away:
        def record(self, event):
            raise ConnectionError("no route to the tracking server")

    Recorder(aggregator.desk.store, Away(), clock, patience=Patience(quick_s=())).drain()
    events = aggregator.runs.events(run, 0)
    (failed,) = [event.detail for event in events if event.kind == "tracking_failed"]  # one, and nothing more is told
    assert (failed["event"], "no route" in failed["reason"]) == ("run_started", True)
    assert "run_finished" in {event.kind for event in events}


def test_a_tracking_port_that_refuses_delays_the_end_of_a_run_by_seconds(aggregator, clock):
    run = finish(aggregator, run_spec("north", rounds=2))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        uri = f"http://127.0.0.1:{closed.getsockname()[1]}"
        began_at = monotonic()
        tracking = MlflowTracking(aggregator.desk, uri)
        # one attempt: another test of this process may have set how often MLflow asks again in each, with pauses of 4 s
        Recorder(aggregator.desk.store, tracking, clock, patience=Patience(quick_s=(), patience_s=0.0)).drain()
    assert monotonic() - began_at < 10
    kinds = [event.kind for event in aggregator.runs.events(run, 0)]
    assert kinds.count("tracking_failed") == 1
    assert kinds[-1] == "run_finished"


def test_a_recorder_that_breaks_takes_the_server_down_with_its_error(aggregator):
    async def serve():
        async with asyncio.timeout(10), serving(aggregator, Untracked(), from_metadata, ANY):
            aggregator.desk.store.edge = None  # every step of the recorder raises from here on
            await asyncio.Event().wait()

    edge = aggregator.desk.store.edge
    with pytest.RaisesGroup(TypeError, allow_unwrapped=False, flatten_subgroups=True):
        asyncio.run(serve())
    aggregator.desk.store.edge = edge


def test_a_run_whose_sites_keep_their_own_models_registers_none(aggregator, tmp_path, clock):
    run = finish(aggregator, run_spec("north", "south", rounds=1, strategy="local"))
    record, client = recorder(aggregator, tmp_path, clock)
    record.drain()
    kinds = [event.kind for event in aggregator.runs.events(run, 0)]
    assert "registered" not in kinds
    assert kinds[-1] == "run_finished"
    assert list(client.search_model_versions("name = 'teaching run'")) == []
    (tracked,) = client.search_runs([client.get_experiment_by_name("teaching run").experiment_id])
    assert (tracked.info.status, tracked.data.metrics["bytes_up"] > 0) == ("FINISHED", True)


# --- the model itself, against the classifier that was trained ---


@contextmanager
def registered(classifier, spec, aggregator, folder, clock):
    """The URI of a registered version of what `classifier` holds."""
    from services.aggregator.registry import Release, register

    _, client = recorder(aggregator, folder, clock)
    trained = classifier.read("shared")
    release = Release(run="r", spec=spec, adapter=trained, digest="d", epsilon={"north": 1.0})
    experiment = client.create_experiment(spec.name, str(folder / "artifacts"))
    version = register(client, client.create_run(experiment).info.run_id, release)
    yield f"models:/{version.name}@candidate"


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("bert", {}),
        ("bert", {"pooling": "cls"}),
        ("mobilenet", {}),
        ("vit", {}),
        ("clip", {"head": {"kind": "prompt"}}),
    ],
)
def test_a_registered_version_answers_as_the_model_that_was_trained(tmp_path, aggregator, clock, family, changes):
    import mlflow
    import pandas as pd
    import torch
    from PIL import Image

    from services.client.training import backbones
    from tests.unit.client import tiny

    base = tiny.save(family, tmp_path / "base")
    classifier = tiny.build(family, base, **changes)
    model = tiny.spec(family, **changes).model_dump()
    model["model"] |= {"base": str(base), "digest": backbones.digest(base)}
    spec = run_spec().model_validate(
        model | {"adapter": classifier.schema(), "convolutions": classifier.convolutions()}
    )
    inputs = tiny.examples(family, 4).inputs
    with torch.no_grad():
        expected = torch.softmax(classifier(classifier.prepare(inputs)).double(), -1).numpy()

    def as_png(pixels):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()

    column = inputs if family == "bert" else [as_png(pixels) for pixels in inputs]
    with registered(classifier, spec, aggregator, tmp_path, clock) as uri:
        loaded = mlflow.pyfunc.load_model(uri)
        found = loaded.predict(pd.DataFrame({spec.model.input: column}))
        assert list(found.columns) == list(spec.labels)
        np.testing.assert_allclose(found.to_numpy(), expected, atol=1e-5)
        (base / "config.json").write_text((base / "config.json").read_text() + "\n")
        with pytest.raises(ValueError, match="the adapter was trained on"):
            mlflow.pyfunc.load_model(uri)


def test_an_adapter_folder_is_read_back_or_refused(tmp_path):
    spec, trained = run_spec("north"), adapter(3)
    peft_folder.write(tmp_path / "adapter", spec, trained)
    read_spec, read = peft_folder.read(tmp_path / "adapter")
    assert read_spec == spec
    np.testing.assert_equal(dict(read), dict(trained))
    about = tmp_path / "adapter" / "deerfield.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"adapter_sha256": "0" * 64}))
    with pytest.raises(InvalidInput, match="not 0000"):
        peft_folder.read(tmp_path / "adapter")
    with pytest.raises(InvalidInput, match="is no adapter folder"):
        peft_folder.read(tmp_path)
