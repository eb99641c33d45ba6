"""Plain federated averaging over two clients; writes the model when all rounds are done."""

from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """All rounds."""
    strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=2, min_available_nodes=2)
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord([np.zeros(1000, np.float32)]),
        num_rounds=int(context.run_config["rounds"]),
    )
    np.save(Path(str(context.run_config["folder"])) / "model.npy", result.arrays.to_numpy_ndarrays()[0])
