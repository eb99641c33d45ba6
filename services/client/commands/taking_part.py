"""What takes part in runs."""

import argparse
import os
from contextlib import ExitStack
from functools import partial

import structlog

from services.client.commands import flags


def add(commands: flags.Commands) -> None:
    """Adds `site`."""
    site = commands.add_parser("site", help="answer the tasks of a run until it ends, or of any run")
    flags.add_site(site)
    flags.add(site, "run", "the run; default: any that this site is a member of")
    flags.add_container(site)
    site.set_defaults(command=_site)


def _site(arguments: argparse.Namespace) -> None:
    from deerfield.wire.client import SiteClient
    from services.client import connection, egress, metrics, policy
    from services.client.custody.custody import Custody
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
        if rules.device == "cuda":  # before anybody waits for this site; torch takes seconds
            from services.client.training.device import choose

            choose(rules.device)
        trust = connection.trust(way.files)
        custody = stack.enter_context(Custody(arguments.site, rules, arguments.state, trust=trust))
        channel = stack.enter_context(connection.open_channel(way, arguments.site))
        link = SiteClient(channel, run=arguments.run, backoff=connection.patience(way))
        figures = metrics.Metrics(custody.left, connection.expires(way.files))
        stack.enter_context(exposed(figures.registry, arguments.metrics))
        ready()
        link.hello(site_report(rules, arguments.state))
        import torch  # seconds, once it is known that there is somebody to train for

        from services.client import workbench

        torch.set_num_threads(rules.threads)
        Site(
            name=arguments.site,
            link=metrics.MeasuredLink(link, figures),
            account=custody.account,
            build=partial(workbench.build, arguments.site, rules, custody.split_key),
            leaves=rules.on_exhaustion == "leave",
        ).serve()
