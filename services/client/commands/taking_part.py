"""What takes part in runs."""

import argparse
import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import structlog

from deerfield.runspec import RunSpec
from services.client.commands import flags
from services.client.custody.custody import Custody
from services.client.policy import Policy
from services.client.site import Workbench

Builder = Callable[[Policy, Custody], Callable[[RunSpec], Workbench]]  # once there is an aggregator to work for


def add(commands: flags.Commands) -> None:
    """Adds `site`."""
    site = commands.add_parser("site", help="answer the tasks of a run until it ends, or of any run")
    add_flags(site)
    site.set_defaults(command=_site)


def add_flags(site: argparse.ArgumentParser) -> None:
    """What every process asks for that takes part."""
    for flag in ("--site", "--aggregator"):
        site.add_argument(flag, required=True)
    site.add_argument("--run", default="", help="the run; default: any that this site is a member of")
    site.add_argument("--policy", type=Path, required=True)
    site.add_argument("--state", type=Path, required=True, help="folder of the ledgers, the key and the stored updates")
    flags.add_tls(site)
    variable = "DEERFIELD_SITE_METRICS"  # an aggregator on the same machine reads DEERFIELD_METRICS
    site.add_argument("--metrics", default=os.environ.get(variable, ""), help=f"host:port for Prometheus [{variable}]")


def _site(arguments: argparse.Namespace) -> None:
    def build(rules: Policy, custody: Custody) -> Callable[[RunSpec], Workbench]:
        import torch  # seconds, once it is known that there is somebody to train for

        from services.client import workbench

        torch.set_num_threads(rules.threads)
        return partial(workbench.build, arguments.site, rules, custody.split_key)

    serve(arguments, build)


def serve(arguments: argparse.Namespace, build: Builder) -> None:
    """Answers the tasks of the aggregator that the flags of `add_flags` name; raises DeerfieldError."""
    from deerfield.wire.client import SiteClient
    from services.client import connection, metrics, policy
    from services.client.reporting import site_report
    from services.client.site import Site
    from services.telemetry.exposition import exposed

    structlog.contextvars.bind_contextvars(site=arguments.site, **({"run": arguments.run} if arguments.run else {}))
    structlog.get_logger().info("site starts", pid=os.getpid())
    rules, way = policy.load(arguments.policy), connection.way(arguments)
    with (
        ExitStack() as stack,
        Custody(arguments.site, rules, arguments.state, trust=connection.trust(way.files)) as custody,
        connection.open_channel(way, arguments.site) as channel,
    ):
        link = SiteClient(channel, run=arguments.run, backoff=connection.patience(way))
        figures = metrics.Metrics(custody.left, connection.expires(way.files))
        stack.enter_context(exposed(figures.registry, arguments.metrics))
        link.hello(site_report(rules, arguments.state))
        Site(
            name=arguments.site,
            link=metrics.MeasuredLink(link, figures),
            account=custody.account,
            build=build(rules, custody),
            leaves=rules.on_exhaustion == "leave",
        ).serve()
