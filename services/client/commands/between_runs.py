"""What serves an operator between runs."""

import argparse
import json
from pathlib import Path

from deerfield.errors import InvalidInput
from services.client.commands import flags


def add(commands: flags.Commands) -> None:
    """Adds plan, register, reconcile and audit."""
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
