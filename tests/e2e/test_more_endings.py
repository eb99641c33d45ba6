"""How `deerfield run` ends before its time, at more moments than `make test` has room for."""

import re

import psutil

from tests.integration.federation import result, wait_for
from tests.integration.running import running, training


def test_ctrl_c_while_the_data_are_prepared_ends_everything(tmp_path):
    with running(tmp_path) as run:
        run.hold("prepare.log")
        assert not (run.out / "prepared.json").exists()
        run.interrupted()


def test_ctrl_c_before_training_starts_ends_everything(tmp_path):
    with running(tmp_path, rounds=500) as run:
        run.hold("east.log")
        assert (run.out / "prepared.json").exists()
        run.interrupted()
        assert result(run.out)["rounds"] == []  # the quorum is everybody, and east was stopped


def test_ctrl_c_during_the_final_scoring_ends_everything(tmp_path):
    with running(tmp_path) as run:
        run.hold("evaluator.log")
        wait_for(lambda: "2/2 round" in run.said() and "FINISHED" in (run.out / "logs/east.log").read_text())
        run.interrupted()
        found = result(run.out)
        assert (found["state"], found["final"]) == ("finished", {})


def test_nothing_outlives_a_preloader_that_is_killed(tmp_path):
    with training(tmp_path, rounds=500) as run:
        preloader = next(
            p for p in psutil.Process(run.process.pid).children() if "services.client.preload" in p.cmdline()
        )
        preloader.kill()
        assert run.end() == 1
        assert "the preloader ended" in run.said()


def test_a_site_that_dies_ends_a_run_that_needs_everybody(tmp_path):
    with training(tmp_path, rounds=500, embedded={"lost_after_s": 15}) as run:
        run.kill("north")
        assert run.end(120) == 1
        assert re.search(r"error: run .* failed: .*the quorum is 3.*north", run.said())
        assert "Traceback" not in run.said()
        assert result(run.out)["state"] == "failed"
