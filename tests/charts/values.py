"""What a chart's values.yaml, its schema and its templates say of each other."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import yaml

from tests.charts.rendering import HELM, documents

Path = tuple[str, ...]
USED = re.compile(r"\.Values((?:\.[A-Za-z]\w*)+)")
# Fields of Kubernetes that are handed on as they are, under their own names: its documentation is theirs.
HANDED_ON = {
    "accessMode", "affinity", "annotations", "dnsConfig", "dnsPolicy", "extraEnv", "extraVolumeMounts",
    "extraVolumes", "fsGroup", "fsGroupChangePolicy", "hostAliases", "nodeSelector", "podAnnotations", "podLabels",
    "priorityClassName", "pullPolicy", "resources", "runAsGroup", "runAsUser", "runtimeClassName", "schedulerName",
    "storageClass", "terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints",
}  # fmt: skip
# Anything else differs between installations, or between two renders of one: Secrets would change with every upgrade.
FORBIDDEN = re.compile(
    r"\b(rand\w*|gen\w*(?:Cert|CA|Key)\w*|uuidv4|lookup|now|date\w*|ago|htpasswd|bcrypt|encryptAES|getHostByName|env"
    r"|expandenv)\b"
)
ACTION = re.compile(r"\{\{.*?\}\}", re.DOTALL)
QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|`[^`]*`|/\*.*?\*/', re.DOTALL)


@cache
def defaults(chart: str) -> Mapping[str, Any]:
    """The chart's values.yaml."""
    return documents((HELM / chart / "values.yaml").read_text())[0]


def leaves(tree: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value with its path; an empty map is one, for what people put there is theirs."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def blocks(tree: Mapping[str, Any], key: str, path: Path = ()) -> Iterator[Path]:
    """The paths of all maps that have this key."""
    if key in tree:
        yield path
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from blocks(value, key, (*path, name))


def at(path: Path, value: object) -> dict[str, Any]:
    """A tree of values with nothing but this one."""
    for key in reversed(path):
        value = {key: value}
    return value  # type: ignore[return-value]


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Two trees of values as one, as Helm does it: the other's wins, map by map."""
    found = dict(one)
    for key, value in other.items():
        both = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
        found[key] = merged(found[key], value) if both else value
    return found


def undocumented(chart: str) -> list[str]:
    """The values that no comment speaks of: over or beside them, or over the map that they are in.

    A map that comes again, such as `image`, need be explained once.
    """
    text = (HELM / chart / "values.yaml").read_text()
    every = list(_keys(yaml.compose(text), text.splitlines(), (), False))
    explained = {path[-2:] for path, _, spoken in every if spoken}
    return [
        f"{chart} {'.'.join(path)} (line {line})"
        for path, line, spoken in every
        if not spoken and path[-1] not in HANDED_ON and path[-2:] not in explained
    ]


def _keys(node: Any, lines: list[str], path: Path, spoken: bool) -> Iterator[tuple[Path, int, bool]]:
    for key, value in node.value:
        at_line = key.start_mark.line
        above = lines[at_line - 1].strip().startswith("#") if at_line else False
        own = above or "#" in lines[at_line]
        here = (*path, key.value)
        if isinstance(value, yaml.MappingNode) and value.value:
            yield from _keys(value, lines, here, own)
        else:
            yield here, at_line + 1, own or spoken


def sources(chart: str) -> dict[str, str]:
    """The templates of a chart and of the library that both have, by path."""
    folders = (HELM / chart / "templates", HELM / "deerfield-common" / "templates")
    files = [each for folder in folders for each in sorted(folder.rglob("*")) if each.is_file()]
    return {str(each.relative_to(HELM)): each.read_text() for each in files}


def unknown_paths(chart: str) -> list[str]:
    """Values that a template asks for and values.yaml does not have."""
    missing = []
    for file, text in sources(chart).items():
        for found in USED.finditer(text):
            tree: Any = defaults(chart)
            for key in found[1].strip(".").split("."):
                if not isinstance(tree, Mapping):
                    break  # a field of what stands in a value, such as a list of maps
                if key not in tree:
                    if tree:
                        missing.append(f"{file}: .Values{found[1]} is not in values.yaml of {chart}")
                    break
                tree = tree[key]
    return missing


def forbidden(text: str) -> list[str]:
    """The functions of a template whose answer is another one each time, or another one without a cluster."""
    return [found for action in ACTION.findall(text) for found in FORBIDDEN.findall(QUOTED.sub("", action))]


def schema_differences(schema: Mapping[str, Any], tree: Mapping[str, Any]) -> Iterator[str]:
    """Where a schema and values.yaml have other keys, a map takes unknown ones, or an error would name no key."""
    yield from _properties(schema, schema, tree, ())
    for words in ("oneOf", "anyOf"):
        yield from (f"{'.'.join(path)} has {words}, whose errors name no key" for path in blocks(schema, words))


def _properties(root: Mapping[str, Any], schema: Mapping[str, Any], tree: Any, path: Path) -> Iterator[str]:
    while "$ref" in schema:
        target: Any = root
        for key in schema["$ref"].removeprefix("#/").split("/"):
            target = target[key]
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    where = ".".join(path) or "the top"
    if not isinstance(tree, Mapping) or not tree or path[-1:] == ("podSecurityContext",):
        return  # whose fields are Kubernetes' own: more of them may be set than have a default here
    known = schema.get("properties", {})
    if not known and isinstance(schema.get("additionalProperties"), Mapping):
        return  # names that people choose, such as those of annotations
    if schema.get("additionalProperties") is not False:
        yield f"schema at {where}: additionalProperties is not false"
    for key in known.keys() - tree.keys() - {"global", "deerfield-common"}:
        yield f"schema at {where}: {key} is not in values.yaml"
    for key, value in tree.items():
        if key not in known:
            yield f"schema at {where}: lacks {key}"
        else:
            yield from _properties(root, known[key], value, (*path, key))
