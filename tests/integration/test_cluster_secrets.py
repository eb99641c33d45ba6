"""`deerfield cluster secrets` and `ca` against a Kubernetes API: what they make, leave alone, and refuse."""

import base64
import shutil
import ssl
import subprocess
import threading
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from deerfield.certificates import Files, hosts_of, load, utc_now
from deerfield.errors import Unreachable
from deerfield.wire.backoff import Backoff
from pipelines.cluster.kubernetes_secrets import Secret, open_secrets
from pipelines.cluster.making import Making
from pipelines.cluster.wanted import load as load_wanted
from tests import command
from tests.cluster import secrets as clusters
from tests.json_server import Refused

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


def test_a_ca_that_was_taken_away_is_not_made_anew_beside_what_it_has_signed(ensure, cluster):
    ensure()
    authority = cluster.take("r-ca")
    code, said = ensure()
    assert (code, "absent  r-ca: the CA is kept elsewhere" in said, "made" in said) == (0, True, False)
    more = [*WANTED["secrets"], {"secret": "r-south-tls", "kind": "site", "name": "south"}]
    code, said = ensure(secrets=more)
    assert code == 2
    assert "Secret r-ca is not there" in said
    assert "nothing can sign r-south-tls" in said
    assert "r-ca" not in cluster.held()
    cluster.put(authority)
    cluster.change("r-ca", ca_key=None)
    assert ensure(secrets=more) == (2, "Secret r-ca lacks ca.key; it holds ca.crt")
    assert "r-south-tls" not in cluster.held()


def test_what_does_not_fit_is_warned_of_and_left(ensure, cluster):
    ensure(days=20)
    other = {
        "r-aggregator-tls": {"hosts": ["r-aggregator", "agg.example.org"]},
        "r-operator-tls": {"name": "ada"},
        "r-trial-tls": {"names": ["trial-a", "trial-b", "trial-c"]},
        "r-tracking-auth": {"username": "root"},
    }
    cluster.change("r-observer-tls", tls_key=cluster.data("r-operator-tls")["tls.key"])
    before = {name: cluster.data(name) for name in NAMES}
    code, said = ensure(secrets=[{**entry, **other.get(entry["secret"], {})} for entry in WANTED["secrets"]])
    assert code == 0
    warned = [line.removeprefix("warning: ") for line in said.splitlines() if line.startswith("warning: ")]
    for text in (
        "Secret r-aggregator-tls: tls.crt is not for agg.example.org, only for 127.0.0.1, r-aggregator",
        "Secret r-aggregator-tls: tls.crt ends in 20 days",
        "Secret r-operator-tls: tls.crt is of deerfield://lungs/operator/admin, and deerfield://lungs/operator/ada is",
        "Secret r-observer-tls: tls.crt is not the certificate of tls.key",
        "Secret r-trial-tls lacks trial-c.crt; it holds ca.crt, trial-a.crt",
        "Secret r-tracking-auth is of username 'admin', and 'root' is wanted",
        "a Secret is never overwritten; delete one that should be made anew",
    ):
        assert sum(line.startswith(text) for line in warned) == 1, (text, warned)
    assert {name: cluster.data(name) for name in NAMES} == before
    cluster.change("r-operator-tls", tls_crt=b"junk")
    assert "Secret r-operator-tls: tls.crt holds no certificate in PEM form" in ensure()[1]


def test_a_secret_of_another_ca_is_warned_of(ensure, cluster):
    ensure()
    held = {name: cluster.take(name) for name in NAMES}
    ensure()
    cluster.take("r-operator-tls")
    cluster.put(held["r-operator-tls"])
    code, said = ensure()
    assert (code, said.count("trusts another CA (ca.crt) than the one in Secret r-ca")) == (0, 1)
    assert "r-operator-tls trusts another CA" in said


def test_a_ca_of_another_federation_signs_nothing(ensure, cluster):
    ensure(federation="hearts", secrets=WANTED["secrets"][:1])
    code, said = ensure()
    assert (code, "of federation 'hearts', and 'lungs' is wanted" in said) == (2, True)
    assert set(cluster.held()) == {"r-ca"}


def test_nothing_outlives_its_ca(ensure, cluster):
    ensure(days=10_000)
    ends = [
        x509.load_pem_x509_certificate(cluster.data(name)[key]).not_valid_after_utc
        for name, key in (("r-ca", "ca.crt"), ("r-operator-tls", "tls.crt"))
    ]
    assert timedelta(0) <= ends[0] - ends[1] < timedelta(days=2)


def test_passwords_need_no_ca(ensure, cluster):
    code, said = ensure(secrets=WANTED["secrets"][-1:])
    assert (code, said.strip()) == (0, "made    r-tracking-auth: a password of admin")
    assert set(cluster.held()) == {"r-tracking-auth"}


def test_what_the_api_refuses_is_one_sentence(ensure, cluster):
    cluster.verbs = {"get"}
    code, said = ensure()
    assert code == 2
    assert said.startswith("this account may not create Secret r-ca in namespace lungs (403: secrets")
    cluster.verbs = set()
    assert "may not get Secret r-ca" in ensure()[1]
    cluster.verbs, cluster.api.namespaces = {"get", "create"}, set()
    code, said = ensure()
    assert (code, "there is no namespace lungs" in said) == (2, True)


def test_an_api_that_is_busy_is_asked_again(ensure, cluster):
    busy = iter([503])

    def sometimes(call):
        if code := next(busy, 0):
            raise Refused(code, "try again")

    cluster.api.before = sometimes
    code, said = ensure()
    assert (code, said.count("made    ")) == (0, len(NAMES))
    assert "could not get Secret r-ca (503: try again); asking again in" in said


def test_an_api_that_is_away_is_one_sentence(tmp_path):
    with clusters.serving() as cluster:
        config = cluster.kube_config(tmp_path / "config")
    secrets = open_secrets("lungs", Backoff(patience_s=0), str(config))
    with pytest.raises(Unreachable, match=r"the Kubernetes API at http://127.0.0.1:\d+ does not answer"):
        secrets.get("r-ca")


def test_without_a_cluster_a_person_is_told_what_to_give(tmp_path):
    file = tmp_path / "wanted.yaml"
    file.write_text(yaml.safe_dump(WANTED))
    ask = ["cluster", "secrets", "--wanted", file, "--namespace", "lungs"]
    code, said = command.deerfield(*ask, KUBECONFIG=str(tmp_path / "none"))
    assert (code, "no Kubernetes API is known here" in said, "--kubeconfig" in said) == (2, True, True)
    code, said = command.deerfield(*ask, KUBERNETES_SERVICE_HOST="127.0.0.1", KUBERNETES_SERVICE_PORT="1")
    assert (code, "Service token file does not exist" in said) == (2, True)


def test_the_ca_becomes_a_folder_that_signs_a_hospitals_request(ensure, deerfield, cluster, tmp_path):
    ensure()
    cluster.put({"metadata": {"name": "unrelated"}, "data": {"tls.crt": base64.b64encode(b"junk").decode()}})
    folder = tmp_path / "ca"
    take = ["ca", "--namespace", "lungs", "--name", "r-ca", "--out", folder]
    code, said = deerfield(*take)
    assert (code, "may not list the Secrets" in said, folder.exists()) == (2, True, False)
    cluster.verbs.add("list")
    code, said = deerfield(*take)
    assert (code, "a list of the 6 certificates" in said) == (0, True)
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())
    shown = command.deerfield("pki", "show", folder, "--json")[1]
    assert '"issued": 6' in shown
    command.deerfield("pki", "request", tmp_path / "south", "--federation", "lungs", "--site", "south")
    out = tmp_path / "south/tls.crt"
    code, said = command.deerfield("pki", "sign", tmp_path / "south/tls.csr", "--ca", folder, "--out", out, "--yes")
    assert code == 0, said
    server = on_disk(cluster, "r-aggregator-tls", tmp_path / "server")
    south = Files(certificate=out, key=tmp_path / "south/tls.key", authority=folder / "ca.crt")
    assert shake_hands(server, south, "r-aggregator") == "site/south"
    operator = x509.load_pem_x509_certificate(cluster.data("r-operator-tls")["tls.crt"])
    serial = f"{operator.serial_number:x}"
    assert command.deerfield("pki", "revoke", serial, "--ca", folder, "--reason", "lost")[0] == 0
    code, said = deerfield(*take)
    assert (code, "never overwritten" in said) == (2, True)
    code, said = deerfield("ca", "--namespace", "lungs", "--name", "r-tls", "--out", tmp_path / "other")
    assert (code, "there is no Secret r-tls" in said) == (2, True)
    code, said = deerfield("ca", "--namespace", "lungs", "--name", "r-operator-tls", "--out", tmp_path / "other")
    assert (code, "Secret r-operator-tls lacks ca.key" in said) == (2, True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"secrets": []}, "secrets"),
        ({"secrets": [{"secret": "r-ca", "kind": "key"}]}, "secrets.0.kind is 'key'"),
        ({"secrets": [{"secret": "R_ca", "kind": "ca"}]}, "'R_ca' cannot be the name of a Secret"),
        ({"secrets": WANTED["secrets"][1:2]}, "none is of kind ca"),
        ({"secrets": [*WANTED["secrets"], {"secret": "ca", "kind": "ca"}]}, "r-ca and ca are both of kind ca"),
        ({"secrets": WANTED["secrets"][:1] * 2}, "r-ca stands there twice"),
        (
            {"secrets": [{"secret": "a", "kind": "ca"}, {"secret": "b", "kind": "site"}]},
            "b is of kind site and has no name",
        ),
        ({"secrets": [{"secret": "a", "kind": "ca", "hosts": ["h"]}]}, "a is of kind ca, which has no hosts"),
        ({"secrets": [{"secret": "a", "kind": "sites", "names": ["x", "x"]}]}, "a names x twice"),
        ({"secrets": [{"secret": "a", "kind": "sites", "names": ["st. x"]}]}, "a names 'st. x', which no key"),
        (
            {"secrets": [{"secret": "a", "kind": "ca"}, {"secret": "b", "kind": "aggregator", "hosts": ["*.x"]}]},
            "'*.x' is no host name",
        ),
        ({"federation": "a/b"}, "'a/b' cannot be the name of the federation"),
        ({"days": 0}, "days is 0"),
    ],
)
def test_a_wanted_file_with_a_mistake_is_one_sentence_that_names_it(ensure, cluster, changes, said):
    code, told = ensure(**changes)
    assert (code, said in told, "wanted.yaml" in told) == (2, True, True), told
    assert cluster.api.asked == []


def test_what_is_secret_stands_in_no_log():
    assert "hush" not in repr(Secret(name="a", type="Opaque", data={"password": b"hush"}))
