"""`deerfield cluster trial` as `helm test` runs it: Secrets as the hook makes them, real sites, a real MLflow."""

import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from deerfield.certificates import Files
from tests import command as in_process
from tests import mlflow_server
from tests.cluster import secrets
from tests.integration import federation
from tests.integration.aggregator.processes import running

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.filterwarnings(
        "ignore:The ``noload`` loader strategy:DeprecationWarning"
    ),  # MLflow 3.17, SQLAlchemy 2.1
]
SHARE = Path(__file__).resolve().parents[2] / "examples/trial"
WANTED = {
    "federation": "lungs",
    "secrets": [
        {"secret": "r-ca", "kind": "ca"},
        {"secret": "r-aggregator-tls", "kind": "aggregator", "hosts": ["127.0.0.1"]},
        {"secret": "r-operator-tls", "kind": "operator", "name": "admin"},
        {"secret": "r-trial-tls", "kind": "sites", "names": ["trial-a", "trial-b"]},
    ],
}


@pytest.fixture
def mounted(tmp_path):
    """The folder of each Secret's files."""
    (tmp_path / "wanted.yaml").write_text(yaml.safe_dump(WANTED))
    with secrets.serving() as cluster:
        config = cluster.kube_config(tmp_path / "kube.config")
        ask = ["cluster", "secrets", "--wanted", tmp_path / "wanted.yaml", "--namespace", "lungs"]
        code, said = in_process.deerfield(*ask, KUBECONFIG=str(config))
        assert code == 0, said
        for name in cluster.held():
            (tmp_path / name).mkdir()
            for key, value in cluster.data(name).items():
                (tmp_path / name / key).write_bytes(value)
                (tmp_path / name / key).chmod(0o600)
    return tmp_path


def tls(folder: Path, name: str = "tls") -> list[str]:
    files = Files(certificate=folder / f"{name}.crt", key=folder / f"{name}.key", authority=folder / "ca.crt")
    pairs = {"--tls-certificate": files.certificate, "--tls-key": files.key, "--tls-ca": files.authority}
    return [str(part) for pair in pairs.items() for part in pair]


def test_a_trial_brings_its_sites_along_and_can_be_run_again(mounted):
    uri, artifacts = mlflow_server.database(mounted), mounted / "artifacts"
    with mlflow_server.serving(mounted, uri, "--artifacts-destination", str(artifacts)) as port:
        tracking = f"http://localhost:{port}"
        with running(mounted, *tls(mounted / "r-aggregator-tls"), "--tracking", tracking) as aggregator:
            ask = ["cluster", "trial", "--aggregator", aggregator.listening, "--tracking", tracking, "--share", SHARE]
            ask += ["--own-sites", mounted / "r-trial-tls", "--timeout", "150", *tls(mounted / "r-operator-tls")]
            for version in ("1", "2"):
                done = federation.deerfield(*ask)
                assert done.returncode == 0, done.stdout + done.stderr
                assert "ok: 2 rounds, 4 exchanges, each with trial-a, trial-b" in done.stdout
                assert "ok: epsilon trial-a 0.9" in done.stdout
                assert f"ok: version {version} of deerfield-trial, digest " in done.stdout
            shutil.copytree(SHARE, mounted / "share")
            (mounted / "share/notes.csv").unlink()
            done = federation.deerfield(*ask, "--share", mounted / "share")
            assert done.returncode == 1
            why = r"error: site trial-[ab] ended with code 2: \S+notes.csv is no file"
            assert re.search(why, done.stderr), done.stderr
            client = mlflow_server.client(tracking)
            assert [each.name for each in client.search_registered_models()] == ["deerfield-trial"]


def test_a_trial_that_is_stopped_aborts_its_run_and_leaves_no_process(mounted):
    uri, here = mlflow_server.database(mounted), federation.environment()
    with running(mounted, *tls(mounted / "r-aggregator-tls")) as aggregator:
        operator = ["--aggregator", aggregator.listening, *tls(mounted / "r-operator-tls")]
        ask = [
            "cluster",
            "trial",
            "--tracking",
            uri,
            "--share",
            SHARE,
            "--own-sites",
            mounted / "r-trial-tls",
            *operator,
        ]
        with subprocess.Popen(federation.command(*ask), env=here, stdout=subprocess.PIPE, text=True) as trial:
            run = trial.stdout.readline().split()[1].removesuffix(":")
            trial.send_signal(signal.SIGTERM)
            assert trial.wait(60) == 130
        federation.assert_none_left(here)
        shown = federation.deerfield("runs", "show", run, *operator).stdout
    assert "ABORTED: interrupted by its operator" in shown
