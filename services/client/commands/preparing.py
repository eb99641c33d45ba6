"""What a run needs before it starts."""

import argparse
import json
from pathlib import Path

from services.client.commands import flags


def add(commands: flags.Commands) -> None:
    """Adds prepare, partition and describe."""
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
