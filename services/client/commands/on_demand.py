"""What takes part in runs without holding a GPU: an agent, and the Job that it makes for each task."""

import argparse
from collections.abc import Callable
from functools import partial
from math import inf, nan
from pathlib import Path

from deerfield.errors import InvalidInput
from deerfield.runspec import RunSpec
from services.client.commands import flags, taking_part
from services.client.custody.custody import Custody
from services.client.ondemand.folder import Request
from services.client.policy import Policy
from services.client.site import Workbench

JOB = Path("/etc/deerfield/job/job.yaml")
START_S = 600.0


def add(commands: flags.Commands) -> None:
    """Adds agent and task."""
    agent = commands.add_parser("agent", help="answer tasks as a site does, with a Kubernetes Job for each")
    taking_part.add_flags(agent)
    flags.add_path(agent, "job", f"manifest of a Job; default: {JOB}")
    flags.add_path(agent, "work", "folder that this agent and its Jobs share, and nobody else has")
    flags.add(agent, "job-start-s", f"seconds that a Job may wait for a machine and its image; default: {START_S:g}")
    agent.set_defaults(command=_agent)

    task = commands.add_parser("task", help="do one task in a Job that an agent has made")
    task.add_argument("--work", type=Path, required=True, help="the task's folder")
    task.set_defaults(command=_task)


def _agent(arguments: argparse.Namespace) -> None:
    from services.client.ondemand import bench, folder, manifest, restart
    from services.client.ondemand.jobs import Jobs, connect

    flags.need(arguments, "work")
    patience = bench.Patience(start_s=_seconds(arguments.job_start_s))

    def prepare(rules: Policy) -> taking_part.Begin:
        folder.try_out(arguments.work)
        jobs = Jobs(manifest.load(arguments.job or JOB, arguments.site), connect())

        def begin(custody: Custody) -> Callable[[RunSpec], Workbench]:
            restart.take_over(arguments.work, rules, custody.account, jobs)
            made = bench.JobWorkbench(
                site=arguments.site,
                policy=rules,
                split_key=custody.split_key,
                work=arguments.work,
                jobs=jobs,
                patience=patience,
            )
            return partial(bench.build, made)

        return begin

    taking_part.serve(arguments, prepare)


def _seconds(text: str) -> float:
    try:
        found = float(text or START_S)
    except ValueError:
        found = nan
    if not 0 < found < inf:
        raise InvalidInput(f"--job-start-s {text!r} is no number of seconds above 0; write one such as {START_S:g}")
    return found


def _task(arguments: argparse.Namespace) -> None:
    from services.client.lifetime import lifetime
    from services.client.ondemand import job

    def build(request: Request) -> Workbench:
        import torch

        from services.client import workbench

        torch.set_num_threads(request.policy.threads)
        return workbench.build(request.site, request.policy, bytes.fromhex(request.split_key), request.spec)

    with lifetime(None):
        job.work(arguments.work, build)
