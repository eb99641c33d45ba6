"""`python -m services.client`: the composition root of everything that needs torch.

`site` answers tasks; `prepare` splits data and describes the model for an embedded run, `describe` the model alone;
`partition` writes each site's part of data that the hub owns;
`follow` scores every phase of a run on data that belongs to the consortium; `evaluate` scores one adapter folder,
`score` several, example by example;
`register`, `plan` and `reconcile` serve an operator between runs, without torch.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TypeAlias

import structlog

from deerfield.errors import DeerfieldError, InvalidInput
from services.telemetry import logs

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; answers its exit code. Errors that deerfield can name are one line on stderr."""
    arguments = _parser().parse_args(argv)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its lines about a failed handshake name no cause; ours do
    try:
        logs.configure(arguments.log, "client", sys.stderr)
        arguments.command(arguments)
    except DeerfieldError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.client", description=__doc__)
    form = "form of the log: json or console; empty: console on a terminal, else json [DEERFIELD_LOG]"
    parser.add_argument("--log", default=os.environ.get("DEERFIELD_LOG", ""), help=form)
    commands = parser.add_subparsers(required=True)
    _add_site(commands)
    _add_preparing(commands)
    _add_scoring(commands)
    _add_between_runs(commands)
    return parser


def _add_site(commands: Commands) -> None:
    """What takes part in a run."""
    site = commands.add_parser("site", help="answer the tasks of a run until it ends, or of any run")
    for flag in ("--site", "--aggregator"):
        site.add_argument(flag, required=True)
    site.add_argument("--run", default="", help="the run; default: any that this site is a member of")
    site.add_argument("--policy", type=Path, required=True)
    site.add_argument("--state", type=Path, required=True, help="folder of the ledgers, the key and the stored updates")
    _add_tls(site)
    variable = "DEERFIELD_SITE_METRICS"  # an aggregator on the same machine reads DEERFIELD_METRICS
    site.add_argument("--metrics", default=os.environ.get(variable, ""), help=f"host:port for Prometheus [{variable}]")
    site.set_defaults(command=_site)


def _add_preparing(commands: Commands) -> None:
    """What a run needs before it starts."""
    prepare = commands.add_parser("prepare", help="split the data of an embedded run, describe its adapter")
    prepare.add_argument("--run", type=Path, required=True)
    prepare.add_argument("--out", type=Path, required=True)
    prepare.add_argument("--pooled", action="store_true")
    prepare.set_defaults(command=_prepare)

    partition = commands.add_parser("partition", help="write each site's part of data that the hub owns")
    partition.add_argument("--run", type=Path, required=True)
    partition.add_argument("--destination", required=True, help="a folder, or s3://BUCKET/PREFIX")
    partition.set_defaults(command=_partition)

    describe = commands.add_parser("describe", help="say what a run file leaves to its base model")
    describe.add_argument("--spec", type=Path, required=True)
    describe.add_argument("--base", required=True)
    describe.set_defaults(command=_describe)


def _add_scoring(commands: Commands) -> None:
    """What says how good models are."""
    follow = commands.add_parser("follow", help="score every published phase of a run")
    follow.add_argument("--aggregator", required=True)
    follow.add_argument("--run", required=True)
    follow.add_argument("--file", type=Path, required=True)
    follow.add_argument("--rows", help="npy file of the rows to score on; default: those that the file's source names")
    _add_tls(follow)
    follow.set_defaults(command=_follow)

    evaluate = commands.add_parser("evaluate", help="score an adapter folder on a data file")
    for flag in ("--adapter", "--data", "--label"):
        evaluate.add_argument(flag, required=True)
    for flag in ("--base", "--input", "--rows", "--patient", "--site"):
        evaluate.add_argument(flag)
    evaluate.add_argument("--scores", type=Path, help="npz for what the model says of each example")
    evaluate.add_argument("--untrained", action="store_true", help="score the base under the state before training")
    evaluate.set_defaults(command=_evaluate)

    score = commands.add_parser("score", help="what several models say of each example of one data file")
    score.add_argument("--request", type=Path, required=True, help="JSON: source, training, models")
    score.add_argument("--out", type=Path, required=True, help="folder of an npz for each model")
    score.set_defaults(command=_score)


def _add_between_runs(commands: Commands) -> None:
    """What serves an operator between runs."""
    plan = commands.add_parser("plan", help="what a run would cost sites, by their policies and ledgers")
    plan.add_argument("--request", type=Path, required=True, help="JSON: the run, and each site's policy and state")
    plan.set_defaults(command=_plan)

    register = commands.add_parser("register", help="check populations, and note in their ledgers which data they are")
    register.add_argument("--site", required=True)
    register.add_argument("--policy", type=Path, required=True)
    register.add_argument("--state", type=Path, required=True)
    register.add_argument("--population", help="default: all of the policy")
    register.set_defaults(command=_register)

    reconcile = commands.add_parser("reconcile", help="charge a ledger what a record has and it lacks")
    for flag in ("--population", "--operator", "--reason"):
        reconcile.add_argument(flag, required=True)
    reconcile.add_argument("--state", type=Path, required=True)
    reconcile.add_argument("--record", type=Path, help="the aggregator's countersigned record; without it, infinity")
    reconcile.add_argument("--write", action="store_true", help="charge it; without this, say what it would be")
    reconcile.set_defaults(command=_reconcile)

    audit = commands.add_parser("audit", help="train with canaries and see what the releases give away")
    audit.add_argument("--site", required=True)
    for flag in ("--spec", "--policy", "--out"):
        audit.add_argument(flag, type=Path, required=True)
    audit.add_argument("--canaries", type=int)
    audit.add_argument("--rounds", type=int, default=1)
    audit.add_argument("--noise-off", action="store_true")
    audit.set_defaults(command=_audit)


def _add_tls(command: argparse.ArgumentParser) -> None:
    for flag in ("--tls-certificate", "--tls-key", "--tls-ca"):
        command.add_argument(flag, type=Path, help="PEM file; all three of them, or none for an aggregator on loopback")
    command.add_argument("--proxy", default="", help="http://HOST:PORT of a CONNECT proxy; default: the environment's")


def _site(arguments: argparse.Namespace) -> None:
    from deerfield.wire.client import SiteClient
    from services.client import connection, metrics, policy
    from services.client.custody.custody import Custody
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


def _prepare(arguments: argparse.Namespace) -> None:
    from deerfield.runfile import RunFile
    from services.client.prepare import prepare

    file = RunFile.model_validate_json(arguments.run.read_text())
    found = prepare(file, arguments.out, pooled=arguments.pooled)
    (arguments.out / "prepared.json").write_text(json.dumps(found, indent=2))


def _partition(arguments: argparse.Namespace) -> None:
    from deerfield.runfile import RunFile
    from services.client.sources import parts, store

    file = RunFile.model_validate_json(arguments.run.read_text())
    print(json.dumps(parts.partition(file, store.open_store(arguments.destination))), flush=True)


def _describe(arguments: argparse.Namespace) -> None:
    from deerfield.runspec import RunSpec
    from services.client.describe import describe

    spec = RunSpec.model_validate_json(arguments.spec.read_text())
    print(json.dumps(describe(spec, arguments.base)), flush=True)


def _follow(arguments: argparse.Namespace) -> None:
    from deerfield.runfile import RunFile
    from deerfield.wire.connection import open_runs
    from services.client import connection

    structlog.contextvars.bind_contextvars(run=arguments.run)
    with open_runs(connection.way(arguments), connection.warn) as runs:
        spec = runs.get(arguments.run).spec
        file = RunFile.model_validate_json(arguments.file.read_text())
        from services.client.evaluation import evaluator  # torch, once it is known that there is something to follow

        evaluator.follow(runs, arguments.run, evaluator.validation(spec, file.embedded, arguments.rows))


def _evaluate(arguments: argparse.Namespace) -> None:
    from deerfield.runfile import Source
    from services.client.evaluation import evaluator

    keys = ("label", "rows", "input", "patient", "site")
    known = {"path": arguments.data, **{key: getattr(arguments, key) for key in keys}}
    source = Source.model_validate({key: value for key, value in known.items() if value is not None})
    found = evaluator.evaluate_folder(
        Path(arguments.adapter), source, arguments.base, scores=arguments.scores, trained=not arguments.untrained
    )
    print(json.dumps(found))


def _score(arguments: argparse.Namespace) -> None:
    from services.client.evaluation import scoring
    from services.client.training import device

    print(json.dumps(scoring.score_all(arguments.request, arguments.out, device.choose())))


def _plan(arguments: argparse.Namespace) -> None:
    from services.client.custody import operator

    print(json.dumps(operator.plan_sites(json.loads(arguments.request.read_text())), allow_nan=False))


def _register(arguments: argparse.Namespace) -> None:
    from services.client import policy
    from services.client.custody import register

    rules = policy.load(arguments.policy)
    reports = register.surveys(rules, arguments.population)
    errors = [report.error for report in reports if report.error is not None]
    print(json.dumps([report.detail() for report in reports]), flush=True)
    if errors:
        raise InvalidInput(errors[0])
    for report in reports:
        register.record(arguments.site, rules, report.population, arguments.state)


def _reconcile(arguments: argparse.Namespace) -> None:
    from services.client.custody import reconcile

    request = reconcile.Request(
        state=arguments.state,
        population=arguments.population,
        operator=arguments.operator,
        reason=arguments.reason,
        record=arguments.record,
    )
    if arguments.write:
        entry = reconcile.write(request)
        print(json.dumps({"sequence": entry.sequence, "hash": entry.hash, **entry.detail}, allow_nan=False))
    else:
        print(json.dumps(reconcile.due(request), allow_nan=False))


def _audit(arguments: argparse.Namespace) -> None:
    from dataclasses import asdict

    import torch

    from deerfield.runspec import RunSpec
    from services.client import policy
    from services.client.auditing import audit

    spec, rules = RunSpec.model_validate_json(arguments.spec.read_text()), policy.load(arguments.policy)
    torch.set_num_threads(rules.threads)
    request = audit.Request(canaries=arguments.canaries, rounds=arguments.rounds)
    report = audit.at_site(arguments.site, rules, spec, request, noiseless=arguments.noise_off)
    arguments.out.write_text(json.dumps({**asdict(report), "violation": report.violation}))


if __name__ == "__main__":
    sys.exit(main())
