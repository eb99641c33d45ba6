"""A client that waits as if it trained, and adds its number to every entry."""

import argparse
import time
from pathlib import Path

import nvflare.client as flare


def main() -> None:
    """Answers tasks until the job ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    flare.init()
    number = int(flare.get_site_name().rpartition("-")[2])
    while flare.is_running():
        received = flare.receive()
        (given.folder / f"round-{received.current_round + 1}-site-{number}").touch()
        time.sleep(given.seconds)
        params = {name: value + number for name, value in received.params.items()}
        flare.send(flare.FLModel(params=params, metrics={"accuracy": 0.0}, meta={"NUM_STEPS_CURRENT_ROUND": 1}))


if __name__ == "__main__":
    main()
