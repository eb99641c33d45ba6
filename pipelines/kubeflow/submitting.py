"""One run of a compiled pipeline, now."""

import os
import uuid
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from typing import Any

from pipelines.compiled.package import Package
from pipelines.kubeflow.kfp_link import Client, called, check_mode, connected, every, patiently
from pipelines.kubeflow.kfp_transport import Where
from pipelines.kubeflow.uploading import experiment, upload


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What is to run."""

    package: Package
    parameters: Mapping[str, Any]
    experiment: str
    service_account: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """The run that was started."""

    run_id: str  # KFP's id, which is the request id of the run at the aggregator
    name: str
    link: str


def submit(where: Where, asked: Submission, patience_s: float) -> Submitted:
    """Starts one run, also where the answer to a first try is lost.

    Raises:
        Unreachable: no answer for `patience_s` seconds.
        InvalidInput: the installation refuses it, or is of another kind.
    """
    # the name is the only thing by which a run can be found whose id was lost with the answer
    name = f"{asked.package.name} {datetime.now(UTC):%Y-%m-%d %H:%M:%S} {uuid.uuid4().hex[:8]}"
    with connected(where) as client:
        run_id = patiently(patience_s, lambda: _started(client, where, asked, name))
    browser = os.environ.get("KF_PIPELINES_UI_ENDPOINT", where.address).rstrip("/")
    return Submitted(run_id=run_id, name=name, link=f"{browser}/#/runs/details/{run_id}")


def _started(client: Client, where: Where, asked: Submission, name: str) -> str:
    check_mode(client, where)
    namespace = client.get_user_namespace() or None
    begun = next(every(client.list_runs, "runs", filter=called(name), namespace=namespace), None)
    if begun is None:
        version = upload(client, asked.package)
        with redirect_stdout(StringIO()):  # kfp prints a link of its own
            begun = client.run_pipeline(
                experiment_id=experiment(client, asked.experiment),
                job_name=name,
                params=dict(asked.parameters),
                pipeline_id=version.pipeline_id,
                version_id=version.version_id,
                service_account=asked.service_account,
            )
    return str(begun.run_id)
