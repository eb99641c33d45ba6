"""`deerfield cluster`: what an installation on Kubernetes needs. docs/cluster.md explains it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deerfield.errors import DeerfieldError, InvalidInput
from pipelines.commands.operator_options import INTERRUPTED, Address, Tls
from pipelines.commands.option_groups import grouped

if TYPE_CHECKING:
    from pipelines.cluster.kubernetes_secrets import Secrets

PATIENCE_S = 30.0  # for an API that is busy or away; the Job that calls tries again later
SHARE = Path("/opt/deerfield/share/trial")  # where images have examples/trial
app = typer.Typer(
    help="Makes the Secrets of an installation on Kubernetes, and tries the installation out.", no_args_is_help=True
)

Namespace = Annotated[str, typer.Option(metavar="NS", envvar="POD_NAMESPACE", help="The installation's namespace.")]
Kubeconfig = Annotated[
    str | None, typer.Option(metavar="FILE", envvar="KUBECONFIG", help="As kubectl's; in a pod, its own cluster.")
]
Context = Annotated[str | None, typer.Option(help="Of the kube config; default: its current one.")]


@app.command()
def secrets(
    wanted: Annotated[Path, typer.Option(metavar="FILE", help="The Secrets that must exist; docs/cluster.md.")],
    namespace: Namespace,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Makes the Secrets that are missing; what is there is never changed. A line for each on stdout."""
    from deerfield.certificates import utc_now
    from pipelines.cluster.making import Making
    from pipelines.cluster.wanted import load

    file = load(wanted)
    Making(
        wanted=file, secrets=_secrets(namespace, kubeconfig, context), now=utc_now(), say=typer.echo, warn=_warn
    ).ensure()


@app.command()
def ca(
    namespace: Namespace,
    name: Annotated[str, typer.Option(metavar="SECRET", help="The CA's Secret, such as RELEASE-ca.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder; keep it on a machine of its own.")],
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Takes the CA out of its Secret, so that deerfield pki sign --ca DIR can sign what hospitals request."""
    from pipelines.cluster import taking

    count = taking.take(_secrets(namespace, kubeconfig, context), name, out)
    typer.echo(
        f"wrote {out}: the CA of Secret {name}, and a list of the {count} certificates that {namespace} holds of it"
    )
    typer.echo(f"the aggregator's list of revoked certificates, if it has one, goes to {out / 'revoked.json'}")


@app.command()
@grouped
def trial(
    aggregator: Address,
    tracking: Annotated[
        str, typer.Option(metavar="URI", envvar="MLFLOW_TRACKING_URI", help="The aggregator's MLflow.")
    ],
    *,
    sites: Annotated[str, typer.Option(metavar="A,B", help="Sites that are connected, with the trial's policy.")] = "",
    own_sites: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Or: NAME.crt, NAME.key and ca.crt of sites to bring along.")
    ] = None,
    share: Annotated[Path, typer.Option(metavar="DIR", help="The trial's run, policy, notes and model.")] = SHARE,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds until it must have finished.")] = 600.0,
    tls: Tls,
) -> None:
    """Runs two small rounds on an installation, and looks at what came of them. Exit code 0 if all is well, else 1."""
    from pipelines.cluster.trial import Request, conduct

    named = tuple(name.strip() for name in sites.split(",") if name.strip())
    if bool(named) == (own_sites is not None):
        raise InvalidInput("a trial needs sites: give either --sites, of those that are connected, or --own-sites")
    request = Request(
        way=tls.way(aggregator), tracking=tracking, share=share, sites=named, own=own_sites, timeout_s=timeout
    )
    try:
        conduct(request, typer.echo)
    except KeyboardInterrupt:
        typer.echo("interrupted: the run was aborted, and everything that was started has been stopped", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _secrets(namespace: str, kubeconfig: str | None, context: str | None) -> "Secrets":
    from deerfield.wire.backoff import Backoff
    from pipelines.cluster.kubernetes_secrets import open_secrets

    return open_secrets(namespace, Backoff(patience_s=PATIENCE_S, tell=_say), kubeconfig, context)


def _say(cause: DeerfieldError, wait_s: float) -> None:
    typer.echo(f"{cause}; asking again in {wait_s:.0f} s", err=True)


def _warn(sentence: str) -> None:
    typer.echo(f"warning: {sentence}", err=True)
