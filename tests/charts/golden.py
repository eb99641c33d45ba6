"""What must not change between releases, and who may call whom, as files that a reviewer reads.

`python -m tests.charts.golden` writes tests/golden/charts anew. A change of `immutable.yaml` breaks upgrades:
Kubernetes refuses it, or a volume is lost.
"""

from typing import Any

import yaml

from tests.charts import network, rendering, secrecy
from tests.charts.pods import of_kind, title
from tests.charts.rendering import ROOT, Render

FOLDER = ROOT / "tests" / "golden" / "charts"
FIXED = {
    "StatefulSet": ("serviceName", "selector", "volumeClaimTemplates", "podManagementPolicy"),
    "Deployment": ("selector",),
    "PersistentVolumeClaim": ("accessModes", "resources", "storageClassName"),
    "Service": ("selector", "clusterIP"),
}


def immutable(render: Render) -> dict[str, Any]:
    """The fields of a release's objects that Kubernetes lets nobody change, or that state hangs on."""
    return {
        title(each): {field: each["spec"][field] for field in FIXED[each["kind"]] if field in each["spec"]}
        for each in of_kind(render.objects, *FIXED)
    }


def edges(render: Render) -> list[str]:
    """Who may call whom; nothing where there are no NetworkPolicies."""
    return sorted(network.edges(render.objects)) if of_kind(render.objects, "NetworkPolicy") else []


def permitted(render: Render) -> list[str]:
    """Who may do what in the cluster."""
    return sorted(" ".join(each) for each in secrecy.roles(render.objects))


PAGES = {"immutable": immutable, "edges": edges, "roles": permitted}


def page(name: str) -> str:
    """One golden file: by chart and values file what `name` says of the render."""
    every = [rendering.of(*cell) for cell in rendering.matrix()]
    found = {str(render): PAGES[name](render) for render in every}
    said = yaml.safe_dump(found, width=120, default_flow_style=None if name == "immutable" else False)
    return f"# python -m tests.charts.golden; {PAGES[name].__doc__}\n{said}"


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for each in PAGES:
        (FOLDER / f"{each}.yaml").write_text(page(each))
