"""What takes part in runs without holding a GPU: an agent, and the Job that it makes for each task."""

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from deerfield.runspec import RunSpec
from services.client.commands import flags, taking_part
from services.client.custody.custody import Custody
from services.client.ondemand.folder import Request
from services.client.policy import Policy
from services.client.site import Workbench

JOB = "/etc/deerfield/job/job.yaml"


def add(commands: flags.Commands) -> None:
    """Adds agent and task."""
    agent = commands.add_parser("agent", help="answer tasks as a site does, with a Kubernetes Job for each")
    taking_part.add_flags(agent)
    job = os.environ.get("DEERFIELD_JOB", JOB)
    agent.add_argument("--job", type=Path, default=job, help=f"manifest of a Job [DEERFIELD_JOB, {JOB}]")
    work = os.environ.get("DEERFIELD_WORK")
    told = "folder that the agent and its Jobs share, and nobody else has [DEERFIELD_WORK]"
    agent.add_argument("--work", type=Path, default=work, required=work is None, help=told)
    start_s = os.environ.get("DEERFIELD_JOB_START_S", "600")
    told = "seconds that a Job may wait for a machine and its image [DEERFIELD_JOB_START_S, 600]"
    agent.add_argument("--start-s", type=float, default=start_s, help=told)
    agent.set_defaults(command=_agent)

    task = commands.add_parser("task", help="do one task in a Job that an agent has made")
    task.add_argument("--work", type=Path, required=True, help="the task's folder")
    task.set_defaults(command=_task)


def _agent(arguments: argparse.Namespace) -> None:
    from services.client.ondemand import bench, manifest, restart
    from services.client.ondemand.jobs import Jobs

    jobs = Jobs(manifest.load(arguments.job, arguments.site))

    def build(rules: Policy, custody: Custody) -> Callable[[RunSpec], Workbench]:
        restart.take_over(arguments.work, rules, custody.account, jobs)
        made = bench.JobWorkbench(
            site=arguments.site,
            policy=rules,
            split_key=custody.split_key,
            work=arguments.work,
            jobs=jobs,
            patience=bench.Patience(start_s=arguments.start_s),
        )
        return partial(bench.build, made)

    taking_part.serve(arguments, build)


def _task(arguments: argparse.Namespace) -> None:
    from services.client.ondemand import job

    def build(request: Request) -> Workbench:
        import torch

        from services.client import workbench

        torch.set_num_threads(request.policy.threads)
        return workbench.build(request.site, request.policy, bytes.fromhex(request.split_key), request.spec)

    job.work(arguments.work, build)
