"""The schemas that objects are held against: the Kubernetes API's own, and those of custom resources at hand."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator
from kubernetes_validate.utils import all_versions
from referencing import Registry, Resource

from tests.charts.pods import title
from tests.charts.rendering import Object

NEWEST = all_versions()[-1]
# Groups of custom resources whose schemas no package here brings: their own admission webhooks check them on a cluster.
NOT_AT_HAND = {
    "gateway.networking.k8s.io": "Gateway API",
    "kueue.x-k8s.io": "Kueue",
    "serving.kserve.io": "KServe",
    "kind.x-k8s.io": "kind",
}


def group(thing: Object) -> str:
    """The API group of an object; empty for the core's."""
    return thing["apiVersion"].rpartition("/")[0]


def builtin(thing: Object) -> bool:
    """Whether Kubernetes itself knows the object."""
    return "." not in group(thing) or (group(thing).endswith(".k8s.io") and group(thing) not in NOT_AT_HAND)


def refusals(thing: Object, version: str) -> Iterator[str]:
    """What the API of that version refuses of an object, unknown keys included."""
    found = _validator(version, thing["apiVersion"], thing["kind"])
    if found is None:
        yield f"{title(thing)}: Kubernetes {version} has no {thing['kind']} of {thing['apiVersion']}"
        return
    for error in found.iter_errors(thing):
        yield f"{title(thing)}: {'.'.join(map(str, error.path))}: {error.message[:300]}"


def custom_refusals(thing: Object) -> Iterator[str]:
    """What the schema of a custom resource refuses, unknown keys included; raises KeyError where there is none here."""
    from pydantic import ValidationError

    model = _models()[(thing["apiVersion"], thing["kind"])]
    try:
        # strict, and by way of JSON: a number that is written as a text is refused, as the API server does
        read = model.model_validate_json(json.dumps(thing), strict=True)
    except ValidationError as error:
        for each in error.errors():
            yield f"{title(thing)}: {'.'.join(map(str, each['loc']))}: {each['msg']}"
        return
    # The models leave out what they do not know, instead of refusing it: whatever is not written again was unknown.
    again = read.model_dump(mode="json", by_alias=True, exclude_unset=True)
    yield from (f"{title(thing)}: {path}: unknown" for path in _lost(thing, again, ""))


def _lost(before: object, after: object, path: str) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key, value in before.items():
            if key not in after:
                yield f"{path}.{key}".lstrip(".")
            else:
                yield from _lost(value, after[key], f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list):
        for index, pair in enumerate(zip(before, after, strict=True)):
            yield from _lost(*pair, f"{path}[{index}]")


@cache
def _models() -> Mapping[tuple[str, str], Any]:
    import cloudcoil.models.cert_manager.v1 as cert_manager
    import cloudcoil.models.prometheus_operator.v1 as prometheus

    found = {("cert-manager.io/v1", kind): getattr(cert_manager, kind)
             for kind in ("Certificate", "Issuer", "ClusterIssuer")}  # fmt: skip
    found |= {("monitoring.coreos.com/v1", kind): getattr(prometheus, kind)
              for kind in ("ServiceMonitor", "PodMonitor", "PrometheusRule")}  # fmt: skip
    return found


@cache
def _validator(version: str, api: str, kind: str) -> Draft202012Validator | None:
    # `kubernetes_validate.validate` reads megabytes of definitions for each object
    name, _, number = api.rpartition("/")
    stem = "-".join(each for each in (kind.lower(), name.partition(".")[0], number) if each)
    file = _folder(version) / f"{stem}.json"
    if not file.is_file():
        return None
    schema = Resource.from_contents(json.loads(file.read_text()))
    return Draft202012Validator(schema.contents, registry=schema @ _definitions(version))


@cache
def _definitions(version: str) -> Registry:
    return Resource.from_contents(json.loads((_folder(version) / "_definitions.json").read_text())) @ Registry()


def _folder(version: str) -> Any:
    return files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}-local-strict"
