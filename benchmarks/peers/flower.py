"""Flower: a SuperLink over a database file, two SuperNodes, `flwr run`."""

import json
import time
from pathlib import Path

import numpy as np

from benchmarks.peers.trial import ROUNDS, TRAIN_S, Outcome, Processes, fingerprint, last_round, mid_round, until

REQUIREMENT = "flwr==1.41.0"  # 1.42.0 asks for a certifi that a registry may not have yet
APP = Path(__file__).with_name("flower_app")
CONFIG = '[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
PORT = 18_600


def run(bin: Path, folder: Path, *, kill: bool, patience_s: float) -> Outcome:
    """One run; the SuperLink is killed with all its children in the middle of a round, and started again."""
    home = folder / "home"
    home.mkdir()
    (home / "config.toml").write_text(CONFIG.format(port=PORT))
    started = Processes(folder, {"FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0", "PATH": f"{bin}:/usr/bin:/bin"})
    link = [bin / "flower-superlink", "--insecure", "--database", "state.db", "--port", str(PORT)]
    link.append("--disable-runtime-dependency-installation")
    try:
        server = started.start("superlink", link)
        until(lambda: '"success": true' in started.ask([bin / "flwr", "list", "here", "--format", "json"]), 60)
        for number in (0, 1):
            place = ["--superlink", f"127.0.0.1:{PORT}", "--port", str(PORT + 1 + number)]
            started.start(
                f"node-{number}",
                [bin / "flower-supernode", "--insecure", *place, "--node-config", f"partition-id={number}"],
            )
        began_at = time.monotonic()
        config = f'folder="{folder}" rounds={ROUNDS} seconds={TRAIN_S}'
        started.ask([bin / "flwr", "run", APP, "here", "-c", config, "--format", "json"])
        if kill:
            mid_round(folder, patience_s)
            started.kill(server)
            time.sleep(1)
            started.start("superlink", link)
        until(lambda: _state(started, bin).startswith("finished") or (folder / "model.npy").exists(), patience_s)
        model = folder / "model.npy"
        return Outcome(
            state=_state(started, bin),
            model=fingerprint(np.load(model)) if model.exists() else "",
            rounds=last_round(folder),
            seconds=time.monotonic() - began_at,
        )
    finally:
        started.end()


def _state(started: Processes, bin: Path) -> str:
    told = started.ask([bin / "flwr", "list", "here", "--format", "json"])
    try:
        newest = json.loads(told)["runs"][0]
    except (ValueError, LookupError):
        return "no run is known"
    return f"{newest['status']} {newest['status-details'].removeprefix('N/A')}".strip()
