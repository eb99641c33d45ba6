"""A client that waits as if it trained, and adds its number to every entry."""

import time
from pathlib import Path

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round: adds 1 or 2 to the model."""
    arrays = message.content["arrays"].to_numpy_ndarrays()
    number, round = int(context.node_config["partition-id"]) + 1, int(message.content["config"]["server-round"])
    Path(str(context.run_config["folder"]), f"round-{round}-site-{number}").touch()
    time.sleep(float(context.run_config["seconds"]))
    reply = RecordDict(
        {
            "arrays": ArrayRecord([each + number for each in arrays]),
            "metrics": MetricRecord({"num-examples": 1}),
        }
    )
    return Message(content=reply, reply_to=message)
