"""`deerfield cluster secrets` and `ca`: what has one CA, and what another has signed or nobody can."""

import base64
from datetime import timedelta

from cryptography import x509

from deerfield.certificates import Files
from tests import command
from tests.integration.installation.conftest import NAMES, WANTED, on_disk, shake_hands


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
