"""A champion answers: loaded as a pyfunc, and over HTTP from `mlflow models serve`, its base found by its digest."""

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from services.aggregator.registry import Release, register
from services.client.training import backbones
from tests.fakes import run_spec
from tests.integration.aggregator.tracking.conftest import recorder
from tests.integration.federation import environment, started_in, wait_for
from tests.unit.client import tiny

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning",  # MLflow 3.17 on SQLAlchemy 2.1
)

NOBODY = "no hub has/such/an id"
START_S = 240  # MLflow, torch, transformers and PEFT are imported twice, one after the other


@pytest.fixture
def champion(request, tmp_path, aggregator, clock):
    """(URI, inputs, the classifier's own answer, folder of bases) of a registered champion of a family."""
    import torch

    family = request.param
    bases = tmp_path / "bases"
    base = tiny.save(family, bases / "whatever it is called")
    classifier = tiny.build(family, base)
    model = tiny.spec(family).model_dump()
    model["model"] |= {"base": NOBODY, "digest": backbones.digest(base)}
    found = {"adapter": classifier.schema(), "convolutions": classifier.convolutions()}
    spec = run_spec().model_validate(model | found)
    _, client = recorder(aggregator, tmp_path, clock)
    release = Release(run="r", spec=spec, adapter=classifier.read("shared"), digest="d", epsilon={"north": 1.0})
    experiment = client.create_experiment(spec.name, str(tmp_path / "artifacts"))
    version = register(client, client.create_run(experiment).info.run_id, release)
    client.set_registered_model_alias(version.name, "champion", version.version)
    inputs = tiny.examples(family, 3).inputs
    with torch.no_grad():
        expected = torch.softmax(classifier(classifier.prepare(inputs)).double(), -1).numpy()
    return f"models:/{version.name}@champion", [_as_sent(each) for each in inputs], expected, bases


def _as_sent(example):
    """A text, or the bytes of an image file."""
    from PIL import Image

    if isinstance(example, str):
        return example
    file = io.BytesIO()
    Image.fromarray(example).save(file, "PNG")
    return file.getvalue()


@contextmanager
def serving(uri, folder, bases):
    """The address of `mlflow models serve` for a model; the server has ended afterwards."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # MLflow starts uvicorn by its name
    here = environment() | {
        "PATH": path,
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "DEERFIELD_BASES": str(bases),
    }
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    mlflow = Path(sys.executable).with_name("mlflow")
    command = [mlflow, "models", "serve", "--model-uri", uri, "--env-manager", "local", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, env=here, stdout=log, stderr=log, cwd=folder, start_new_session=True)
        try:
            wait_for(lambda: process.poll() is not None or _answers(f"http://127.0.0.1:{port}/ping"), START_S)
            assert process.poll() is None, (folder / "serve.log").read_text()
            yield f"http://127.0.0.1:{port}"
        finally:
            with suppress(ProcessLookupError):  # it has ended by itself
                os.killpg(process.pid, signal.SIGTERM)  # it has started another process, which serves
            wait_for(lambda: not started_in(here), 30)
            process.wait(30)


def _answers(address):
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return answer.status == 200
    except OSError:  # of all that urllib raises
        return False


def invoke(address, body):
    """(status, JSON) of a call of /invocations."""
    request = urllib.request.Request(
        f"{address}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@contextmanager
def bases_in(folder):
    """DEERFIELD_BASES in this process' environment."""
    os.environ["DEERFIELD_BASES"] = str(folder)
    try:
        yield
    finally:
        del os.environ["DEERFIELD_BASES"]


def loaded(uri, inputs, column, bases):
    """What the model answers in this process, with DEERFIELD_BASES set for as long as it is loaded."""
    import mlflow
    import pandas as pd

    with bases_in(bases):
        model = mlflow.pyfunc.load_model(uri)
    found = model.predict(pd.DataFrame({column: inputs}))
    assert list(found.columns) == list(tiny.LABELS)
    return found.to_numpy()


def as_json(inputs):
    """As MLflow's protocol wants them: bytes in base64."""
    return [base64.b64encode(each).decode() if isinstance(each, bytes) else each for each in inputs]


@pytest.mark.parametrize("champion", ["bert", pytest.param("vit", marks=pytest.mark.e2e)], indirect=True)
def test_a_champion_answers_as_a_pyfunc_and_over_http(champion, tmp_path):
    import mlflow

    uri, inputs, expected, bases = champion
    column = "text" if isinstance(inputs[0], str) else "image"
    np.testing.assert_allclose(loaded(uri, inputs, column, bases), expected, atol=1e-5)
    with serving(uri, tmp_path, bases) as address:
        status, found = invoke(
            address, {"dataframe_split": {"columns": [column], "data": [[x] for x in as_json(inputs)]}}
        )
        assert (status, [list(row) for row in found["predictions"]]) == (200, [list(tiny.LABELS)] * 3)
        served = [[row[label] for label in tiny.LABELS] for row in found["predictions"]]
        np.testing.assert_allclose(served, expected, atol=1e-5)
        assert invoke(address, {"dataframe_records": [{column: each} for each in as_json(inputs)]}) == (200, found)
        status, refused = invoke(address, {"dataframe_records": [{"voice": "hello"}]})
        assert status == 400
        assert column in json.dumps(refused)  # the signature says what is missing
        example = mlflow.models.Model.load(uri).get_serving_input(mlflow.artifacts.download_artifacts(uri))
        status, found = invoke(address, json.loads(example))
        assert (status, len(found["predictions"])) == (200, 1)


@pytest.mark.parametrize("champion", ["bert"], indirect=True)
def test_a_base_that_is_nowhere_or_not_the_one_it_was_trained_on_is_refused_in_one_sentence(champion, tmp_path):
    import mlflow

    uri, _, _, bases = champion
    with pytest.raises(ValueError, match="DEERFIELD_BASES is not set") as refused:
        mlflow.pyfunc.load_model(uri)
    assert NOBODY in str(refused.value)
    assert "\n" not in str(refused.value)
    with bases_in(tmp_path / "nowhere"), pytest.raises(ValueError, match="nowhere, which is no folder"):
        mlflow.pyfunc.load_model(uri)
    (held,) = bases.iterdir()
    with bases_in(bases):
        mlflow.pyfunc.load_model(uri)
        (held / "config.json").write_text((held / "config.json").read_text() + "\n")
        with pytest.raises(ValueError, match="has none with digest"):
            mlflow.pyfunc.load_model(uri)
        with pytest.raises(ValueError, match="the adapter was trained on"):
            mlflow.pyfunc.load_model(uri, model_config={"base": str(held)})
        with pytest.raises(ValueError, match=r"package:no\.such\.package"):
            mlflow.pyfunc.load_model(uri, model_config={"base": "package:no.such.package"})


@pytest.mark.parametrize("champion", ["bert", "mobilenet"], indirect=True)
def test_the_signature_and_an_example_are_part_of_the_model(champion):
    import mlflow
    from PIL import Image

    uri, inputs, _, _ = champion
    info = mlflow.models.get_model_info(uri)
    kind = "string" if isinstance(inputs[0], str) else "binary"
    assert [column.type.name for column in info.signature.inputs] == [kind]
    assert info.signature.outputs.input_names() == list(tiny.LABELS)
    example = mlflow.models.Model.load(uri).load_input_example(mlflow.artifacts.download_artifacts(uri))
    (value,) = example[info.signature.inputs.input_names()[0]]
    if kind == "binary":
        assert Image.open(io.BytesIO(base64.b64decode(value) if isinstance(value, str) else value)).size == (32, 32)
    else:
        assert value.endswith(".")
