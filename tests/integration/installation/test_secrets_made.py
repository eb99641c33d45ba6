"""`deerfield cluster secrets` against a Kubernetes API: what it makes, and leaves alone."""

import shutil
import ssl
import subprocess
import threading

import pytest
import yaml
from cryptography import x509

from deerfield.certificates import hosts_of, load, utc_now
from deerfield.wire.backoff import Backoff
from pipelines.cluster.kubernetes_secrets import open_secrets
from pipelines.cluster.making import Making
from pipelines.cluster.wanted import load as load_wanted
from tests.integration.installation.conftest import NAMES, WANTED, on_disk, shake_hands


def test_what_is_missing_is_made_and_what_is_there_stays_byte_for_byte(ensure, cluster):
    code, said = ensure()
    assert code == 0, said
    assert [line.split()[:2] for line in said.splitlines()] == [["made", f"{name}:"] for name in NAMES]
    held = cluster.held()
    assert {name: held[name]["type"] for name in NAMES} == {
        "r-ca": "Opaque",
        "r-aggregator-tls": "kubernetes.io/tls",
        "r-operator-tls": "kubernetes.io/tls",
        "r-observer-tls": "kubernetes.io/tls",
        "r-north-tls": "kubernetes.io/tls",
        "r-trial-tls": "Opaque",
        "r-tracking-auth": "kubernetes.io/basic-auth",
    }
    assert all(each["metadata"]["labels"] == WANTED["labels"] for each in held.values())
    assert sorted(cluster.data("r-trial-tls")) == ["ca.crt", "trial-a.crt", "trial-a.key", "trial-b.crt", "trial-b.key"]
    assert cluster.data("r-tracking-auth")["username"] == b"admin"
    password = cluster.data("r-tracking-auth")["password"].decode()
    assert len(password) == 32
    assert password not in said
    assert "PRIVATE" not in said
    before = {name: cluster.data(name) for name in NAMES}
    cluster.api.asked.clear()
    code, again = ensure()
    assert (code, [line.split()[0] for line in again.splitlines()]) == (0, ["exists"] * len(NAMES))
    assert {name: cluster.data(name) for name in NAMES} == before
    assert {each.verb for each in cluster.api.asked} == {"get"}


def test_the_certificates_are_of_whom_they_are_wanted_and_two_ends_take_each_other(ensure, cluster, tmp_path):
    ensure()
    now = utc_now()
    server = on_disk(cluster, "r-aggregator-tls", tmp_path / "server")
    callers = {
        "operator/admin": on_disk(cluster, "r-operator-tls", tmp_path / "operator"),
        "observer/monitor": on_disk(cluster, "r-observer-tls", tmp_path / "observer"),
        "site/st.%20anselm": on_disk(cluster, "r-north-tls", tmp_path / "north"),
        "site/trial-a": on_disk(cluster, "r-trial-tls", tmp_path / "a", "trial-a"),
        "site/trial-b": on_disk(cluster, "r-trial-tls", tmp_path / "b", "trial-b"),
    }
    assert load(server, now).peer.uri == "deerfield://lungs/aggregator"
    assert hosts_of(x509.load_pem_x509_certificate(server.certificate.read_bytes())) == ["r-aggregator", "127.0.0.1"]
    for identity, files in callers.items():
        own = load(files, now)
        assert (own.peer.uri, own.warnings) == (f"deerfield://lungs/{identity}", ())
        assert shake_hands(server, files, "r-aggregator") == identity
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(server, callers["operator/admin"], "elsewhere")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_takes_them_too(ensure, cluster, tmp_path):
    ensure()
    server = on_disk(cluster, "r-aggregator-tls", tmp_path / "server")
    client = on_disk(cluster, "r-operator-tls", tmp_path / "operator")
    for files, purpose in ((server, "sslserver"), (client, "sslclient")):
        verify = ["openssl", "verify", "-x509_strict", "-CAfile", files.authority, "-purpose", purpose]
        done = subprocess.run([*verify, files.certificate], capture_output=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr


def test_only_what_was_deleted_is_made_anew_by_the_same_ca(ensure, cluster):
    ensure()
    before = {name: cluster.data(name) for name in NAMES}
    for name in ("r-operator-tls", "r-tracking-auth"):
        cluster.take(name)
    code, said = ensure()
    assert (code, said.count("made    "), said.count("exists  ")) == (0, 2, 5)
    for name in NAMES:
        assert (cluster.data(name) == before[name]) == (name not in ("r-operator-tls", "r-tracking-auth"))
    assert cluster.data("r-operator-tls")["ca.crt"] == before["r-ca"]["ca.crt"]


def test_two_at_once_end_with_one_ca_and_what_it_has_signed(ensure, cluster, tmp_path):
    """Both have seen that nothing is there before either makes anything."""
    both = threading.Barrier(2, timeout=20)
    arrived = threading.local()

    def together(call):
        if call.verb == "create" and not hasattr(arrived, "once"):
            arrived.once = True
            both.wait()

    file, config = tmp_path / "wanted.yaml", cluster.kube_config(tmp_path / "config")
    file.write_text(yaml.safe_dump(WANTED))
    said: list[list[str]] = [[], []]
    secrets = [open_secrets("lungs", Backoff(patience_s=5), str(config)) for _ in said]

    def make(which: int) -> None:
        Making(
            wanted=load_wanted(file),
            secrets=secrets[which],
            now=utc_now(),
            say=said[which].append,
            warn=said[which].append,
        ).ensure()

    cluster.api.before = together
    threads = [threading.Thread(target=make, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    lines = [line for each in said for line in each]
    assert sorted(line.split()[1] for line in lines if line.startswith("made")) == sorted(f"{name}:" for name in NAMES)
    assert (
        sum("made by another just now" in line for line in lines) + sum(line.startswith("made") for line in lines) == 14
    )
    authority = x509.load_pem_x509_certificate(cluster.data("r-ca")["ca.crt"])
    for name in ("r-aggregator-tls", "r-operator-tls", "r-north-tls"):
        certificate = x509.load_pem_x509_certificate(cluster.data(name)["tls.crt"])
        certificate.verify_directly_issued_by(authority)
    cluster.api.before = lambda call: None
    assert ensure()[1].count("warning") == 0


def test_passwords_need_no_ca(ensure, cluster):
    code, said = ensure(secrets=WANTED["secrets"][-1:])
    assert (code, said.strip()) == (0, "made    r-tracking-auth: a password of admin")
    assert set(cluster.held()) == {"r-tracking-auth"}
