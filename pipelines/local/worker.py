"""Runs a compiled pipeline under kfp.local, in a process of its own: `python -m pipelines.local.worker REQUEST.json`.

What KFP and the tasks say goes to standard output. When standard input closes it ends, and every task with it: it must
lead a session of its own, as `processes.worker` starts it. Tasks are processes, or containers where the request says
what these see.
"""

import json
import os
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

from pipelines.local.containers import Shown, end


def main(request: Path) -> int:
    """Runs the pipeline that `request` names, with its arguments; answers 1 if it failed."""
    asked = json.loads(request.read_text("utf-8"))
    shown = Shown(**asked["containers"]) if asked["containers"] else None
    threading.Thread(target=_end_with_input, args=(shown,), name="input", daemon=True).start()
    warnings.simplefilter("ignore")  # KFP warns of images whose name does not say Python
    from kfp import components, local

    folder = Path(asked["folder"])
    local.init(_runner(shown), pipeline_root=str(folder), workspace_root=str(folder / "workspace"))
    try:
        components.load_component_from_file(asked["pipeline"])(**asked["arguments"])
    except RuntimeError as error:  # how KFP says that a task has failed
        print(error, file=sys.stderr)
        return 1
    return 0


def _runner(shown: Shown | None) -> Any:
    from kfp import local

    from pipelines.local import container_task

    return local.SubprocessRunner(use_venv=False) if shown is None else container_task.runner(shown)


def _end_with_input(shown: Shown | None) -> None:
    """Whoever started this process writes nothing: the end of its input is the end of whoever that was."""
    os.read(0, 1)
    try:
        if shown is not None:
            end(shown.folder)
    finally:
        os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
