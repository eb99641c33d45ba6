"""What takes part in runs."""

import argparse
import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import structlog

from deerfield.runspec import RunSpec
from services.client.commands import flags
from services.client.custody.custody import Custody
from services.client.policy import Policy
from services.client.site import Workbench

Begin = Callable[[Custody], Callable[[RunSpec], Workbench]]  # once there is an aggregator to work for
Prepare = Callable[[Policy], Begin]  # before anybody waits for the site


def add(commands: flags.Commands) -> None:
    """Adds `site`."""
    site = commands.add_parser("site", help="answer the tasks of a run until it ends, or of any run")
    add_flags(site)
    site.set_defaults(command=_site)


def add_flags(site: argparse.ArgumentParser) -> None:
    """What every process asks for that takes part."""
    flags.add_site(site)
    flags.add(site, "run", "the run; default: any that this site is a member of")
    flags.add_container(site)


def _site(arguments: argparse.Namespace) -> None:
    def prepare(rules: Policy) -> Begin:
        if rules.device == "cuda":  # before anybody waits for this site; torch takes seconds
            from services.client.training.device import choose

            choose(rules.device)
        return begin

    def begin(custody: Custody) -> Callable[[RunSpec], Workbench]:
        import torch  # seconds, once it is known that there is somebody to train for

        from services.client import workbench

        torch.set_num_threads(custody.policy.threads)
        return partial(workbench.build, arguments.site, custody.policy, custody.split_key)

    serve(arguments, prepare)


def serve(arguments: argparse.Namespace, prepare: Prepare) -> None:
    """Answers the tasks of the aggregator that the flags of `add_flags` name; raises DeerfieldError."""
    from deerfield.wire.client import SiteClient
    from services.client import connection, egress, metrics, policy
    from services.client.lifetime import lifetime
    from services.client.reporting import site_report
    from services.client.site import Site
    from services.client.sources import store
    from services.telemetry.exposition import exposed

    flags.need(arguments, "site", "aggregator", "policy", "state")
    structlog.contextvars.bind_contextvars(site=arguments.site, **({"run": arguments.run} if arguments.run else {}))
    structlog.get_logger().info("site starts", pid=os.getpid())
    way = connection.way(arguments)
    with ExitStack() as stack:
        ready = stack.enter_context(lifetime(arguments.ready))
        egress.prove(egress.targets(arguments.egress_proof, way))
        rules = policy.load(arguments.policy)
        for population in rules.populations.values():
            store.check(population.source.path)
        begin = prepare(rules)
        trust = connection.trust(way.files)
        custody = stack.enter_context(Custody(arguments.site, rules, arguments.state, trust=trust))
        channel = stack.enter_context(connection.open_channel(way, arguments.site))
        link = SiteClient(channel, run=arguments.run, backoff=connection.patience(way))
        figures = metrics.Metrics(custody.left, connection.expires(way.files))
        stack.enter_context(exposed(figures.registry, arguments.metrics))
        ready()
        link.hello(site_report(rules, arguments.state))
        Site(
            name=arguments.site,
            link=metrics.MeasuredLink(link, figures),
            account=custody.account,
            build=begin(custody),
            leaves=rules.on_exhaustion == "leave",
        ).serve()
