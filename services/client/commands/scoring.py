"""What says how good models are."""

import argparse
import json
from pathlib import Path

import structlog

from services.client.commands import flags


def add(commands: flags.Commands) -> None:
    """Adds follow, evaluate and score."""
    follow = commands.add_parser("follow", help="score every published phase of a run")
    follow.add_argument("--aggregator", required=True)
    follow.add_argument("--run", required=True)
    follow.add_argument("--file", type=Path, required=True)
    follow.add_argument("--rows", help="npy file of the rows to score on; default: those that the file's source names")
    flags.add_tls(follow)
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
