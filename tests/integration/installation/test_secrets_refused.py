"""`deerfield cluster secrets`: an API that refuses, is busy or away, and files with mistakes."""

import pytest
import yaml

from deerfield.errors import Unreachable
from deerfield.wire.backoff import Backoff
from pipelines.cluster.kubernetes_secrets import Secret, open_secrets
from tests import command
from tests.cluster import secrets as clusters
from tests.integration.installation.conftest import NAMES, WANTED
from tests.json_server import Refused


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
