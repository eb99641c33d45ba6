"""Writes the job: plain federated averaging over two clients. `python job.py OUT ROUNDS SECONDS MARKS`."""

import sys
from pathlib import Path

from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe


def main() -> None:
    """Writes the job."""
    out, rounds, seconds, marks = sys.argv[1:]
    recipe = NumpyFedAvgRecipe(
        name="adding",
        model=[0.0] * 1000,
        min_clients=2,
        num_rounds=int(rounds),
        train_script=str(Path(__file__).with_name("client.py")),
        train_args=f"--seconds {seconds} --folder {marks}",
    )
    recipe.export(out)


if __name__ == "__main__":
    main()
