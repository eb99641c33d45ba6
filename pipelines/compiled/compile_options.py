"""What is decided when a pipeline is compiled: defaults of its parameters, and what KFP takes no parameter for.

A YAML file of these keys is `deerfield pipelines compile --options FILE`; docs/pipelines.md lists them.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from deerfield import __version__
from deerfield.runfile import mapping, parse
from deerfield.runspec import Section

DAY_S = 86_400
LABEL = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"  # Kubernetes' own rule
OBJECT = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
PREFIX = r"^[a-z0-9]([-a-z0-9.]*)$"

Label = Annotated[str, Field(pattern=LABEL, max_length=317)]
Object = Annotated[str, Field(pattern=OBJECT, max_length=253)]
Quantity = Annotated[str, Field(pattern=QUANTITY, max_length=32)]
Image = Annotated[str, Field(pattern=r"^[^\s]+$", max_length=512)]


class Resources(Section):
    """What a pod asks for, and gets at most."""

    cpu: Quantity = Field("1", description="CPUs")
    memory: Quantity = Field("4Gi", description="memory")


class Toleration(Section):
    """A taint that the sites' pods tolerate."""

    key: Label | None = Field(None, description="the taint's key; none: every taint")
    operator: Literal["Equal", "Exists"] = Field("Exists", description="how the value is compared")
    value: str | None = Field(None, description="of operator Equal")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(None, description="none: every one")


class Gpu(Section):
    """The accelerator of a site's pod."""

    type: Label = Field("nvidia.com/gpu", description="resource name; a default of the pipeline's parameter")
    count: int = Field(
        1,
        ge=0,
        le=64,
        description="of each site; a default of the parameter gpus, which is refused above 0 where this is 0",
    )


class Sites(Section):
    """The sites' pods of a simulated consortium."""

    image: Image = Field(f"deerfield-client:{__version__}", description="a default of the pipeline's parameter")
    resources: Resources = Field(
        Resources(cpu="4", memory="16Gi"), description="of each site; defaults of the pipeline's parameters"
    )
    gpu: Gpu = Field(Gpu(), description="of each site")
    tolerations: tuple[Toleration, ...] = Field(
        (Toleration(key="nvidia.com/gpu", effect="NoSchedule"),), description="taints of the nodes with accelerators"
    )
    node_selector: dict[Label, str] = Field({}, description="labels of the nodes that sites may run on")
    shared_memory: Quantity = Field("2Gi", description="size of /dev/shm")
    queue: Object | None = Field("deerfield", description="Kueue's local queue; null: no label")
    names: str = Field(
        "deerfield-site-", pattern=PREFIX, max_length=60, description="begins each site's secret and volume claim"
    )
    retries: int = Field(3, ge=0, le=100, description="of a site whose pod fails; its ledger says where it was")
    timeout_s: int = Field(7 * DAY_S, ge=60, description="seconds of a site's pod")


class CompileOptions(Section):
    """How both pipelines are compiled."""

    image: Image = Field(f"deerfield-pipelines:{__version__}", description="a default of the pipelines' parameter")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        None, description="Always, IfNotPresent or Never; none: as the cluster has it"
    )
    pull_secrets: tuple[Object, ...] = Field((), description="of a registry that asks who pulls")
    resources: Resources = Field(Resources(), description="of a task that computes nothing")
    evaluation: Resources = Field(Resources(cpu="4", memory="16Gi"), description="of the task that evaluates")
    tls_secret: Object = Field(
        "deerfield-operator-tls", description="certificate, key and CA of the operator; a default of the parameter"
    )
    s3_secret: Object = Field(
        "mlpipeline-minio-artifact", description="keys accesskey, secretkey; need not be there; a default, too"
    )
    tracking_secret: Object = Field(
        "deerfield-mlflow", description="keys username, password of MLflow; need not be there; a default, too"
    )
    data_claim: Object | None = Field(
        "deerfield-data", description="volume claim of data and parts, at /data; null: federated-training has none"
    )
    retries: int = Field(3, ge=0, le=100, description="of each task that asks another service")
    retry_after_s: int = Field(10, ge=0, le=600, description="seconds before the first retry; doubled up to 600")
    timeout_s: int = Field(DAY_S, ge=60, description="seconds of a task, the rounds apart")
    rounds_timeout_s: int = Field(7 * DAY_S, ge=60, description="seconds of the rounds")
    user: int = Field(10001, ge=1, le=65_535, description="user and group that every task runs as")
    sites: Sites = Field(Sites(), description="the sites' pods of simulated-consortium")


def load(path: Path | None) -> CompileOptions:
    """Reads options from a YAML file; without one, the defaults.

    Raises:
        InvalidInput: one sentence that names the key, its value, the limit and what to do.
    """
    if path is None:
        return CompileOptions()
    return parse(CompileOptions, mapping(path, "a file of compile options", "image"), str(path))
