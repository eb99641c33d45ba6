"""deerfield: an aggregator over SQLite and a folder, and two site processes."""

import socket
import time
from pathlib import Path

from benchmarks.peers.trial import ROUNDS, TRAIN_S, Outcome, Processes, fingerprint, last_round, mid_round, until
from deerfield.runspec import Federation, Model, Privacy, RunSpec
from deerfield.wire.backoff import Backoff
from deerfield.wire.channel import connect
from deerfield.wire.client import RunsClient

SHAPES = {"layer.lora_A.weight": (1, 2), "layer.lora_B.weight": (2, 1), "head.weight": (1, 1000)}


def run(bin: Path, folder: Path, *, kill: bool, patience_s: float) -> Outcome:
    """One run; the aggregator is killed in the middle of a round, and started again on the same files."""
    started, port = Processes(folder, {"PYTHONPATH": str(Path.cwd())}), _free_port()
    address = f"127.0.0.1:{port}"
    serve = [bin / "python", "-m", "services.aggregator", "--listen", address, "--health", "127.0.0.1:0"]
    try:
        server = started.start("aggregator", serve)
        with connect(address, role="operator") as channel:
            runs, began_at = RunsClient(channel, backoff=Backoff(last_s=1.0, patience_s=patience_s)), time.monotonic()
            name = runs.start(_spec(), "once")
            for number in (1, 2):
                site = [bin / "python", "-m", "benchmarks.peers.adding_site", address, name, str(number), folder]
                started.start(f"site-{number}", [*site, str(TRAIN_S)])
            if kill:
                mid_round(folder, patience_s)
                started.kill(server)
                time.sleep(1)
                started.start("aggregator", serve)
            until(lambda: runs.get(name).state != "RUNNING", patience_s)
            view = runs.get(name)
            model = runs.fetch(view.model)["head.weight"] if view.state == "FINISHED" else None
        return Outcome(
            state=view.state,
            model=fingerprint(model) if model is not None else "",
            rounds=last_round(folder),
            seconds=time.monotonic() - began_at,
        )
    finally:
        started.end()


def _spec() -> RunSpec:
    return RunSpec(
        name="adding",
        strategy="fedavg",
        rounds=ROUNDS,
        population="nobody",
        labels=("no", "yes"),
        model=Model.model_validate({"base": "none", "input": "text", "lora": {"rank": 1}}),
        privacy=Privacy(unit="none", clip=None),
        federation=Federation(sites=("site-1", "site-2")),
        adapter=SHAPES,
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])
