"""Laws on hooks: what Helm runs before and after, in their order, and what is left of them."""

from collections.abc import Iterable, Iterator

from tests.charts.pods import title
from tests.charts.rendering import Object

KINDS = {
    "pre-install", "post-install", "pre-upgrade", "post-upgrade", "pre-delete", "post-delete", "pre-rollback",
    "post-rollback", "test",
}  # fmt: skip
POLICIES = {"before-hook-creation", "hook-succeeded", "hook-failed"}
PREPARES = ("ServiceAccount", "Role", "RoleBinding", "ConfigMap", "NetworkPolicy")
ACTS = ("Job", "Pod")


def hooks(objects: Iterable[Object]) -> Iterator[str]:
    """A hook says what becomes of it and when its turn is; what it needs has its turn before it."""
    latest: dict[str, int] = {}
    acting: list[tuple[str, str, int]] = []
    for each in objects:
        told = each["metadata"].get("annotations", {})
        when = {part.strip() for part in told.get("helm.sh/hook", "").split(",")} - {""}
        if not when:
            if strays := [name for name in told if name.startswith("helm.sh/hook-")]:
                yield f"{title(each)}: {strays[0]}, and is no hook"
            continue
        if unknown := when - KINDS:
            yield f"{title(each)}: no hook {sorted(unknown)}"
        after = {part.strip() for part in told.get("helm.sh/hook-delete-policy", "").split(",")} - {""}
        if "before-hook-creation" not in after or after - POLICIES:
            yield f"{title(each)}: hook-delete-policy {sorted(after)} lets an older one stand in its way"
        try:
            weight = int(told["helm.sh/hook-weight"])
        except (KeyError, TypeError, ValueError):
            yield f"{title(each)}: hook-weight is {told.get('helm.sh/hook-weight')}"
            continue
        for moment in when:
            if each["kind"] in PREPARES:
                latest[moment] = max(latest.get(moment, weight), weight)
            elif each["kind"] in ACTS:
                acting.append((title(each), moment, weight))
    for name, moment, weight in acting:
        if moment in latest and weight <= latest[moment]:
            yield f"{name}: weight {weight} at {moment}, beside what it needs at {latest[moment]}"
