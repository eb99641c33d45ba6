"""Over a real MLflow: what it is told depends neither on the kind of our database nor on where the tensors lie."""

import shutil

import pytest

from services.aggregator.rounds.recorder import Recorder
from services.aggregator.tracking import MlflowTracking
from tests.integration.aggregator.conftest import folder_in, sqlite_in
from tests.integration.aggregator.promoting import Shop


@pytest.fixture
def database():
    return sqlite_in


@pytest.fixture
def place():
    return folder_in


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """MLflow's database as it is before anything is logged: it takes seconds to make, so one is copied."""
    import mlflow

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(autouse=True)
def _database(tmp_path, empty_database):
    shutil.copy(empty_database, tmp_path / "mlflow.db")


@pytest.fixture
def shop(aggregator, tmp_path):
    return Shop.opened(aggregator, tmp_path)


def recorder(aggregator, folder, clock, adopted=""):
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    tracking = MlflowTracking(aggregator.desk, uri, str(folder / "artifacts"), adopted)
    return Recorder(aggregator.desk.store, tracking, clock), tracking._client()
