"""The options of commands that ask Kubeflow Pipelines; imports nothing that takes time."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pipelines.compiled.package import Package
    from pipelines.kubeflow.kfp_transport import Where

Address = Annotated[
    str,
    typer.Option(
        "--kfp",
        metavar="URL",
        envvar="KF_PIPELINES_ENDPOINT",
        help="Its API, such as http://ml-pipeline.kubeflow:8888.",
    ),
]
Namespace = Annotated[
    str, typer.Option(metavar="NAME", envvar="DEERFIELD_KFP_NAMESPACE", help="Of a multi-user installation.")
]
Token = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        envvar="KF_PIPELINES_SA_TOKEN_PATH",
        help="Token for the audience pipelines.kubeflow.org; default: where one is mounted, if it is.",
    ),
]
Ca = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", envvar="DEERFIELD_KFP_CA", help="PEM file of the CA that an https server is checked by."
    ),
]
Patience = Annotated[
    float, typer.Option(metavar="SECONDS", min=0, help="How long to ask a server that does not answer.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Compiled = Annotated[
    Path, typer.Argument(metavar="PIPELINE.yaml", help="A compiled pipeline, of deerfield pipelines compile.")
]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="A parameter of the pipeline; again for more."),
]
Files = Annotated[
    list[str] | None,
    typer.Option(
        "--file", "-f", metavar="NAME=FILE", help="A parameter whose value is a file's text, such as the run."
    ),
]
Experiment = Annotated[str, typer.Option(metavar="NAME", help="Of its runs; made where there is none.")]
Account = Annotated[str | None, typer.Option(metavar="NAME", help="The Kubernetes account of its pods.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Which server of Kubeflow Pipelines, and who asks it, for a parameter of a `grouped` command."""

    address: Address
    namespace: Namespace = ""
    token: Token = None
    ca: Ca = None

    def where(self) -> "Where":
        """By the token that is mounted here, if none is named; raises InvalidInput for what can be no address."""
        from pipelines.kubeflow.kfp_transport import MOUNTED, Where

        token = self.token or (MOUNTED if MOUNTED.exists() else None)
        return Where(address=self.address, namespace=self.namespace, token=token, ca=self.ca)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """What the runs of a pipeline are given, for a parameter of a `grouped` command."""

    parameter: Parameters = None
    file: Files = None
    experiment: Experiment = "Default"
    service_account: Account = None

    def parameters(self, package: "Package") -> dict[str, Any]:
        """The pipeline's parameters; raises InvalidInput for what it does not take."""
        from pipelines.compiled.package import given

        return given(package, self.parameter or (), self.file or ())
