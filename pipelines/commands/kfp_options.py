"""The options of commands that ask Kubeflow Pipelines; imports nothing that takes time."""

from pathlib import Path
from typing import Annotated

import typer

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
Package = Annotated[
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
