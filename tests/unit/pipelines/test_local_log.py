"""What kfp.local writes of a pipeline, as a person is shown it."""

from pipelines.local.log import Told

RAW = """\
17:41:00.123 - INFO - Running pipeline: \x1b[95m'federated-training'\x1b[0m
--------------------------------------------------------------------------------
17:41:00.200 - INFO - Executing task \x1b[96m'partition'\x1b[0m
17:41:00.201 - INFO - Streamed logs:

    [KFP Executor 2026-11-21 17:41:01,000 INFO]: Looking for component `partition` in --component_module_path
    [KFP Executor 2026-11-21 17:41:01,000 INFO]: Got executor_input:
    {
        "inputs": {
            "parameterValues": {"run": "secret"}
        }
    }
    3 sites
    [KFP Executor 2026-11-21 17:41:09,000 INFO]: Wrote executor output file to /tmp/x/executor_output.json.


17:41:09.300 - INFO - Task \x1b[96m'partition'\x1b[0m finished with status \x1b[92mSUCCESS\x1b[0m
17:41:09.301 - INFO - Task \x1b[96m'partition'\x1b[0m outputs:
    manifest: Dataset( name='manifest',
                       uri='/tmp/x/manifest',
                       metadata={} )
--------------------------------------------------------------------------------
17:41:09.400 - INFO - Executing task \x1b[96m'rounds'\x1b[0m
17:41:09.401 - INFO - Streamed logs:

    run small: RUNNING
    error: run small failed: nobody came
17:41:20.300 - ERROR - Task \x1b[96m'rounds'\x1b[0m finished with status \x1b[91mFAILURE\x1b[0m
17:41:20.400 - INFO - Executing task \x1b[96m'report'\x1b[0m
17:41:20.401 - INFO - Streamed logs:

    error: another
17:41:20.500 - ERROR - Task \x1b[96m'report'\x1b[0m finished with status \x1b[91mFAILURE\x1b[0m
"""


def told() -> tuple[Told, list[str]]:
    said: list[str] = []
    times = iter(range(0, 1000, 7))
    shown = Told(said.append, clock=lambda: float(next(times)))
    for line in RAW.splitlines(keepends=True):
        shown.line(line)
    return shown, said


def test_a_task_begins_says_what_it_says_and_ends():
    assert told()[1] == [
        "partition", "  3 sites", "  done in 7 s",
        "rounds", "  run small: RUNNING", "  error: run small failed: nobody came", "  failed after 7 s",
        "report", "  error: another", "  failed after 7 s",
    ]  # fmt: skip


def test_the_first_failure_is_the_pipelines():
    shown, _ = told()
    assert (shown.failed, shown.error) == ("rounds", "run small failed: nobody came")
