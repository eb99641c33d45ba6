"""The Kubernetes API of the tests, asked without a network: who is refused what, and with which status."""

import json
from functools import partial

import pytest

from tests.cluster import jobs, roles, secrets
from tests.cluster.api import Api, hold_against_schemas
from tests.cluster.store import Store
from tests.json_server import Refused, Request

SECRETS = "/api/v1/namespaces/lungs/secrets"
JOBS = "/apis/batch/v1/namespaces/lungs/jobs"
PODS = "/api/v1/namespaces/lungs/pods"
POD = {"metadata": {"name": "j-0", "labels": {jobs.LABEL: "j"}}, "status": {"phase": "Running"}}
CONTAINER = {"name": "c", "image": "i"}
JOB = {"metadata": {"name": "j"}, "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [CONTAINER]}}}}
RULES = [
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create", "list"]},
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "delete"], "resourceNames": ["a"]},
    {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create", "get", "delete"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "create"]},
]


@pytest.fixture
def store() -> Store:
    """One that has a Role for the account `maker`."""
    found, meta = Store(), {"name": "maker", "namespace": "lungs"}
    subjects = [{"kind": "ServiceAccount", "name": "maker"}]
    found.put({"kind": "Role", "metadata": meta, "rules": RULES})
    found.put({"kind": "RoleBinding", "metadata": meta, "roleRef": {"name": "maker"}, "subjects": subjects})
    return found


@pytest.fixture
def pods() -> list:
    return []


@pytest.fixture
def api(store, pods):
    """Secrets, and Jobs that become nothing by themselves."""
    held = jobs.resources(store, store.put, store.drop, lambda namespace: pods)
    held["secrets"] = secrets.resource(store)
    return Api(held, partial(roles.allows, store), hold_against_schemas, namespaces={"lungs"})


@pytest.fixture
def ask(api):
    """Asks as an account; answers the status and the document."""

    def asking(method, path, body=None, account="maker", **query):
        headers = {"authorization": f"bearer {api.token('lungs', account) if account else 'nobody'}"}  # as pods say it
        request = Request(method, path, query, headers, b"" if body is None else json.dumps(body).encode())
        try:
            return api.answer(request)
        except Refused as error:
            return error.status, api.refusal(request, error)

    return asking


def secret(name, **data):
    return {"metadata": {"name": name}, "data": data}


def test_what_is_made_is_there_under_its_name_until_it_is_deleted(ask, api):
    assert ask("POST", SECRETS, secret("a", key="aGk="))[0] == 201
    status, found = ask("GET", f"{SECRETS}/a")
    assert (status, found["kind"], found["apiVersion"], found["type"]) == (200, "Secret", "v1", "Opaque")
    assert (found["metadata"]["namespace"], bool(found["metadata"]["uid"])) == ("lungs", True)
    assert ask("POST", SECRETS, secret("a"))[0] == 409
    assert ask("DELETE", f"{SECRETS}/a")[0] == 200
    status, told = ask("GET", f"{SECRETS}/a")
    assert (status, told["message"], told["reason"]) == (404, 'secrets "a" not found', "NotFound")
    assert (told["kind"], told["status"], told["code"]) == ("Status", "Failure", 404)
    assert [each.status for each in api.asked] == [201, 200, 409, 200, 404]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (secret("A_b"), 422),
        (secret("a", **{"a/b": ""}), 422),
        (secret("a", key="%"), 400),
        ({**secret("a", **{"tls.crt": ""}), "type": "kubernetes.io/tls"}, 422),
        ({**secret("a"), "colour": "red"}, 422),
        ({**secret("a"), "kind": "ConfigMap"}, 400),
    ],
)
def test_what_the_api_would_refuse_is_not_kept(ask, store, body, status):
    assert ask("POST", SECRETS, body)[0] == status
    assert list(store.all("Secret", "lungs")) == []


def test_whoever_has_no_token_is_nobody_and_whoever_has_no_role_is_forbidden(ask):
    assert ask("GET", SECRETS, account="")[0] == 401
    status, told = ask("GET", SECRETS, account="other")
    assert (status, 'User "system:serviceaccount:lungs:other" cannot list' in told["message"]) == (403, True)
    ask("POST", SECRETS, secret("b"))
    assert ask("GET", f"{SECRETS}/b")[0] == 403  # its Role names another
    assert ask("DELETE", f"{SECRETS}/b")[0] == 403


@pytest.mark.parametrize(
    "path", ["/api/v1/nodes", SECRETS.replace("secrets", "configmaps"), JOBS.replace("batch/", "")]
)
def test_what_the_api_has_not_is_not_found(ask, path):
    assert ask("GET", path)[0] == 404


def test_a_namespace_that_is_not_there_takes_nothing(api):
    with pytest.raises(Refused, match='namespaces "hearts" not found'):
        api.create("secrets", "hearts", secret("a"))


def test_a_list_comes_in_pages_and_by_labels(ask):
    for name in "abc":
        ask("POST", SECRETS, {"metadata": {"name": name, "labels": {"of": name}}})
    first = ask("GET", SECRETS, limit="2")[1]
    rest = ask("GET", SECRETS, limit="2", **{"continue": first["metadata"]["continue"]})[1]
    assert [[each["metadata"]["name"] for each in page["items"]] for page in (first, rest)] == [["a", "b"], ["c"]]
    assert "continue" not in rest["metadata"]
    (found,) = ask("GET", SECRETS, labelSelector="of=b")[1]["items"]
    assert found["metadata"]["name"] == "b"


def test_a_job_is_what_its_pods_are(ask, pods):
    assert ask("POST", JOBS, JOB)[1]["status"] == {"active": 1}
    pods.append(POD)
    assert len(ask("GET", PODS, labelSelector=f"{jobs.LABEL}=j")[1]["items"]) == 1
    assert ask("GET", f"{JOBS}/j")[1]["status"] == {"active": 1}
    for phase, condition in (("Failed", "Failed"), ("Succeeded", "Complete")):
        pods.append(jobs.pod(POD["metadata"], phase, jobs.terminated(1)))
        assert ask("GET", f"{JOBS}/j")[1]["status"]["conditions"][0]["type"] == condition
    assert ask("DELETE", f"{JOBS}/j")[0] == 200
    assert ask("GET", f"{JOBS}/j")[0] == 404


def test_pods_are_made_by_their_workloads_alone(ask):
    assert ask("POST", PODS, {"metadata": {"name": "p"}, "spec": {"containers": [CONTAINER]}})[0] == 405


def test_faults_happen_before_anything_is_looked_at(ask, api):
    def busy(call):
        raise Refused(503, "try again")

    api.before = busy
    status, told = ask("POST", SECRETS, secret("a"))
    assert (status, told["message"]) == (503, "try again")
    api.before = lambda call: None
    assert ask("POST", SECRETS, secret("a"))[0] == 201
