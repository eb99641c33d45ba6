"""A cluster whose API keeps Secrets, and the command that makes them there."""

import ssl
from pathlib import Path

import pytest
import yaml

from deerfield.certificates import Files
from tests import command
from tests.cluster import secrets as clusters

WANTED = {
    "federation": "lungs",
    "labels": {"app.kubernetes.io/instance": "r"},
    "secrets": [
        {"secret": "r-ca", "kind": "ca"},
        {"secret": "r-aggregator-tls", "kind": "aggregator", "hosts": ["r-aggregator", "127.0.0.1"]},
        {"secret": "r-operator-tls", "kind": "operator", "name": "admin"},
        {"secret": "r-observer-tls", "kind": "observer", "name": "monitor"},
        {"secret": "r-north-tls", "kind": "site", "name": "st. anselm"},
        {"secret": "r-trial-tls", "kind": "sites", "names": ["trial-a", "trial-b"]},
        {"secret": "r-tracking-auth", "kind": "password", "username": "admin"},
    ],
}
NAMES = [entry["secret"] for entry in WANTED["secrets"]]


@pytest.fixture
def cluster():
    with clusters.serving() as found:
        yield found


@pytest.fixture
def deerfield(cluster, tmp_path):
    """The command in that cluster."""
    config = cluster.kube_config(tmp_path / "kube.config")

    def run(*arguments):
        return command.deerfield("cluster", *arguments, KUBECONFIG=str(config))

    return run


@pytest.fixture
def ensure(deerfield, tmp_path):
    """`secrets` with a file: WANTED with these changes."""

    def run(**changes):
        file = tmp_path / "wanted.yaml"
        file.write_text(yaml.safe_dump({**WANTED, **changes}))
        return deerfield("secrets", "--wanted", file, "--namespace", "lungs")

    return run


def on_disk(cluster, secret: str, folder: Path, name: str = "tls") -> Files:
    """A party's files, as a pod has them."""
    folder.mkdir()
    for key, value in cluster.data(secret).items():
        (folder / key).write_bytes(value)
        (folder / key).chmod(0o600)
    return Files(certificate=folder / f"{name}.crt", key=folder / f"{name}.key", authority=folder / "ca.crt")


def shake_hands(server: Files, client: Files, host: str) -> str:
    """The identity that a server by one party's files sees of the other party's, over TLS with both checked."""
    ends = [ssl.MemoryBIO(), ssl.MemoryBIO()]
    sides = []
    for files, role in ((server, ssl.PROTOCOL_TLS_SERVER), (client, ssl.PROTOCOL_TLS_CLIENT)):
        context = ssl.SSLContext(role)
        context.load_cert_chain(files.certificate, files.key)
        context.load_verify_locations(files.authority)
        context.verify_mode = ssl.CERT_REQUIRED
        is_server = role is ssl.PROTOCOL_TLS_SERVER
        name = None if is_server else host
        sides.append(
            context.wrap_bio(*(ends if is_server else ends[::-1]), server_side=is_server, server_hostname=name)
        )
    waiting = sides[::-1]
    while waiting:
        side = waiting.pop(0)
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            waiting.append(side)
    names = sides[0].getpeercert()["subjectAltName"]
    return dict(names)["URI"].removeprefix("deerfield://lungs/")
