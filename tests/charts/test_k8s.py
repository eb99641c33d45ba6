"""The folder k8s/: what its manifests name is there, and Kubernetes takes them."""

import re
import shutil
import subprocess

import pytest
import yaml

from tests.charts import rendering, restricted, schemas, values
from tests.charts.pods import containers, of_kind, pods
from tests.charts.rendering import ROOT, Render

FOLDER = ROOT / "k8s"
FILES = sorted(FOLDER.glob("*.yaml"))
EVERY = {path.name: rendering.documents(path.read_text()) for path in FILES}
OBJECTS = [each for objects in EVERY.values() for each in objects]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_manifests_are_what_their_schemas_say(path):
    unknown = set()
    for each in EVERY[path.name]:
        if schemas.builtin(each):
            assert [said for version in (schemas.NEWEST, "1.28.0") for said in schemas.refusals(each, version)] == []
        elif schemas.group(each) in schemas.NOT_AT_HAND:
            unknown.add(schemas.NOT_AT_HAND[schemas.group(each)])
        else:
            assert list(schemas.custom_refusals(each)) == []
    if unknown:
        pytest.skip(f"resources of {', '.join(unknown)} were held against no schema: none is installed here")


def test_nothing_is_a_deployment_of_the_product():
    kinds = {each["kind"] for each in OBJECTS}
    assert not kinds & {"Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "Pod", "Service", "Secret"}


def test_namespaces_enforce_restricted_and_the_one_of_kubeflow_s_tasks_baseline():
    level = {
        each["metadata"]["name"]: each["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        for each in of_kind(OBJECTS, "Namespace")
    }
    assert {name for name, said in level.items() if said == "baseline"} == {"deerfield-tasks"}
    assert {said for name, said in level.items() if name != "deerfield-tasks"} == {"restricted"}
    named = {each["metadata"]["namespace"] for each in OBJECTS if "namespace" in each.get("metadata", {})}
    assert named <= level.keys()


def test_a_maximum_of_gpus_is_not_what_every_container_gets():
    """A LimitRange's maximum is the default where it names none."""
    for limits in of_kind(OBJECTS, "LimitRange"):
        for limit in limits["spec"]["limits"]:
            assert {name for name in limit.get("max", {}) if limit.get("default", {}).get(name) != "0"} == set()


def test_queues_lead_to_a_queue_that_has_their_gpu():
    (cluster,) = of_kind(OBJECTS, "ClusterQueue")
    flavors = {each["metadata"]["name"] for each in of_kind(OBJECTS, "ResourceFlavor")}
    queues = of_kind(OBJECTS, "LocalQueue")
    assert {each["spec"]["clusterQueue"] for each in queues} == {cluster["metadata"]["name"]}
    (rule,) = cluster["spec"]["namespaceSelector"]["matchExpressions"]
    assert set(rule["values"]) == {each["metadata"]["namespace"] for each in queues}
    for group in cluster["spec"]["resourceGroups"]:
        for flavor in group["flavors"]:
            assert flavor["name"] in flavors
            assert [each["name"] for each in flavor["resources"]] == group["coveredResources"]


def test_the_claim_of_data_gets_its_volume_and_nobody_else_does():
    (volume,), (claim,) = of_kind(OBJECTS, "PersistentVolume"), of_kind(OBJECTS, "PersistentVolumeClaim")
    assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
    assert volume["spec"]["claimRef"] == {key: claim["metadata"][key] for key in ("namespace", "name")}
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert volume["spec"]["accessModes"] == claim["spec"]["accessModes"]
    (cluster,) = EVERY["kind.yaml"]
    mounted = {mount["containerPath"] for node in cluster["nodes"] for mount in node["extraMounts"]}
    assert volume["spec"]["hostPath"]["path"] in mounted


def test_issuers_are_chained_from_the_one_that_signs_itself():
    objects = EVERY["cert-manager.yaml"]
    issuers = {each["metadata"]["name"]: each["spec"] for each in of_kind(objects, "Issuer")}
    made = {each["spec"]["secretName"]: each["spec"] for each in of_kind(objects, "Certificate")}
    assert {each["issuerRef"]["name"] for each in made.values()} == issuers.keys()
    assert {spec["ca"]["secretName"] for spec in issuers.values() if "ca" in spec} == {
        name for name, each in made.items() if each.get("isCA")
    }


def test_a_served_champion_is_a_restricted_pod():
    (service,) = of_kind(OBJECTS, "InferenceService")
    (pod,) = pods([{**service, "kind": "Pod", "spec": service["spec"]["predictor"]}])
    assert [*restricted.offences(pod), *restricted.read_only(pod)] == []


def images() -> set[str]:
    """All images that the charts name where the values name no registry and no digest."""
    found = set()
    for name, path in rendering.matrix():
        tree = rendering.read(path) if path else {}
        if {"tag", "repository"} & keys(tree):
            continue
        for block in values.blocks(values.defaults(name), "repository"):
            tree = values.merged(tree, values.at(block, {"registry": "", "digest": ""}))
        plain = rendering.rendered(name, values.merged(tree, {"image": {"registry": ""}}))
        found |= {box["image"] for pod in pods(plain.objects) for _, box in containers(pod)}
    return found


def keys(tree: object) -> set[str]:
    """All keys of a tree of values."""
    if not isinstance(tree, dict):
        return set()
    return tree.keys() | {key for value in tree.values() for key in keys(value)}


def test_the_list_for_places_without_a_registry_has_every_image():
    lines = (FOLDER / "images.txt").read_text().splitlines()
    listed = {line for line in lines if line and not line.startswith("#")}
    assert listed == images()


def test_the_script_passes_shellcheck():
    if shutil.which("shellcheck") is None:
        pytest.skip("k8s/kind.sh was not checked: there is no shellcheck here (apt-get install shellcheck)")
    subprocess.run(["shellcheck", FOLDER / "kind.sh"], check=True)


def test_the_script_names_files_and_values_that_there_are():
    text = (FOLDER / "kind.sh").read_text()
    assert "set -euo pipefail" in text
    subprocess.run(["bash", "-n", FOLDER / "kind.sh"], check=True)
    for path in re.findall(r"\b(?:k8s|helm)/[-\w/.]+\w", text):
        assert (ROOT / path).exists(), path
    for page in (FOLDER / "README.md", FOLDER / "kind.sh"):
        for path in re.findall(r"\bk8s/([-\w]+\.\w+)", page.read_text()):
            assert (FOLDER / path).exists(), f"{page.name}: {path}"


def installed() -> dict[str, Render]:
    """The releases that the script installs, with the values that it sets."""
    text = (FOLDER / "kind.sh").read_text().replace("\\\n", " ")
    found = {}
    for line in re.findall(r"^h upgrade --install (.*)$", text, re.MULTILINE):
        release, folder, *words = line.split()
        said = [yaml.safe_load(word.partition("=")[2]) for word in words if "=" in word]
        paths = [tuple(word.partition("=")[0].split(".")) for word in words if "=" in word]
        tree: dict = {}
        for path, value in zip(paths, said, strict=True):
            tree = values.merged(tree, values.at(path, value))
        found[release] = rendering.rendered(folder.removeprefix("helm/"), tree, release=release)
    return found


def test_the_script_installs_charts_by_values_that_they_take():
    releases = installed()
    assert {render.chart for render in releases.values()} == set(rendering.CHARTS)
    text = (FOLDER / "kind.sh").read_text()
    (site,) = [pod for pod in pods(releases["north"].objects) if pod.selector]
    asked = {each["name"]: each.get("value") for _, box in containers(site) for each in box["env"]}
    host, port = asked["DEERFIELD_AGGREGATOR"].split(":")
    ((service, served),) = [
        (each["metadata"]["name"], each["spec"]["ports"])
        for each in of_kind(releases["deerfield"].objects, "Service")
        if each["metadata"]["name"] == host.partition(".")[0]
    ]
    assert host == f"{service}.deerfield.svc"
    assert int(port) in {each["port"] for each in served}
    for thing in re.findall(r"get secret (\S+)", text):
        assert thing in {"north-tls", f"{releases['deerfield'].release}-ca"}


def test_a_served_champion_is_found_in_the_release_that_the_script_installs():
    (service,) = of_kind(OBJECTS, "InferenceService")
    (box,) = service["spec"]["predictor"]["containers"]
    uri = next(each["value"] for each in box["env"] if each["name"] == "MLFLOW_TRACKING_URI")
    release = installed()["deerfield"]
    hosts = [
        each["value"].split(",")
        for pod in pods(release.objects)
        for _, other in containers(pod)
        for each in other.get("env", [])
        if each["name"] == "DEERFIELD_TRACKING_ALLOWED_HOSTS"
    ]
    host, _, port = uri.removeprefix("http://").partition(":")
    # the release of these tests is in another namespace than the script's
    assert [host.replace(".deerfield", f".{rendering.NAMESPACE}") in names for names in hosts] == [True]
    assert port == "5000"
    assert box["image"] in {each for pod in pods(release.objects) for _, b in containers(pod) for each in [b["image"]]}


def test_the_readme_speaks_of_every_file():
    text = (FOLDER / "README.md").read_text()
    assert [
        path.name for path in sorted(FOLDER.iterdir()) if f"`{path.name}`" not in text and path.name != "README.md"
    ] == []
