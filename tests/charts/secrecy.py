"""Laws on what must not be said, and on what a pod may do: Secrets, tokens, roles."""

import re
from collections.abc import Iterable, Iterator

from tests.charts.pods import containers, of_kind, pods, title, with_kept
from tests.charts.rendering import Object, strings

SECRET = re.compile(r"PASSW|SECRET|TOKEN|CREDENTIAL|ACCESS_?KEY|PRIVATE|API_?KEY", re.IGNORECASE)
IN_URL = re.compile(r"[a-z][-+.a-z0-9]*://[^/\s:@]*:(?!\$\()[^/\s@]+@")
KEY = "PRIVATE KEY-----"


def secrets(objects: Iterable[Object]) -> Iterator[str]:
    """No secret stands in an object: neither a Secret made of values, nor a variable, nor a URL, nor a key."""
    for each in with_kept(objects):
        if each["kind"] == "Secret" and (each.get("data") or each.get("stringData")):
            yield f"{title(each)}: made of values"
        for text in strings(each):
            if KEY in text:
                yield f"{title(each)}: holds a private key"
            if IN_URL.search(text):
                yield f"{title(each)}: a password in a URL"
    for pod in pods(objects):
        for where, box in containers(pod):
            for each in box.get("env", []):
                said = each.get("value", "")
                if SECRET.search(each["name"]) and said and not each["name"].endswith(("_FILE", "_PATH")):
                    yield f"{where}: {each['name']} has its value in plain"


def tokens(objects: Iterable[Object]) -> Iterator[str]:
    """A pod has its account's token only where that has a role; one that is not made here may have it elsewhere."""
    objects = list(objects)
    made = {each["metadata"]["name"] for each in of_kind(objects, "ServiceAccount")}
    bound = {
        subject["name"]
        for each in of_kind(objects, "RoleBinding", "ClusterRoleBinding")
        for subject in each.get("subjects", [])
    }
    for each in of_kind(objects, "ServiceAccount"):
        if each.get("automountServiceAccountToken") is not False:
            yield f"{title(each)}: automountServiceAccountToken is not false"
    for pod in pods(objects):
        account, token = pod.spec.get("serviceAccountName", "default"), pod.spec.get("automountServiceAccountToken")
        if token is None or token not in (True, False):
            yield f"{pod.where}: does not say whether it has a token"
        elif token and account in made - bound:
            yield f"{pod.where}: has the token of {account}, which has no role"
        elif account in bound & made and not token:
            yield f"{pod.where}: runs as {account}, which has a role, and has no token to use it"


def roles(objects: Iterable[Object]) -> set[tuple[str, str, str, str]]:
    """Who may do what: component, kind of role, verb, GROUP/RESOURCE and names where they are limited."""
    objects = list(objects)
    rules = {
        (each["kind"], each["metadata"]["name"]): each["rules"] for each in of_kind(objects, "Role", "ClusterRole")
    }
    found = set()
    for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding"):
        ref = binding["roleRef"]
        for subject in binding.get("subjects", []):
            users = {pod.component for pod in pods(objects) if pod.spec.get("serviceAccountName") == subject["name"]}
            for rule in rules[(ref["kind"], ref["name"])]:
                limited = " by name" if rule.get("resourceNames") else ""
                found |= {
                    (user, binding["kind"], verb, f"{group}/{resource}{limited}")
                    for user in users or {f"nobody ({subject['name']})"}
                    for verb in rule["verbs"]
                    for group in rule["apiGroups"]
                    for resource in rule["resources"]
                }
    return found


def images(objects: Iterable[Object]) -> Iterator[str]:
    """Every image has a tag, which is not `latest`."""
    for pod in pods(objects):
        for where, box in containers(pod):
            tag = box["image"].partition("@")[0].rpartition("/")[2].partition(":")[2]
            if tag in ("", "latest"):
                yield f"{where}: image {box['image']} has tag {tag or 'none'}"
            if box.get("imagePullPolicy") is None:
                yield f"{where}: no imagePullPolicy"
