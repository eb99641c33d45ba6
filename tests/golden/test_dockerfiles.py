"""What all Dockerfiles have in common, and which PyTorch an image takes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted([*ROOT.glob("services/*/Dockerfile"), ROOT / "pipelines/Dockerfile"])
WANTED = re.compile(r"^RUN sh image.sh wanted (\S+)", re.MULTILINE)


def wanted(extras: str, torch: str) -> subprocess.CompletedProcess[str]:
    """What pip is asked for."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    argv = ["sh", "services/image.sh", "wanted", extras, torch]
    return subprocess.run(argv, cwd=ROOT, env={"PATH": path}, capture_output=True, text=True, check=False)


def test_all_stand_on_one_base_of_one_patch_level():
    bases = {re.search(r"^ARG BASE=(.*)$", each.read_text(), re.MULTILINE)[1] for each in FILES}
    assert len(FILES) == 4
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", bases.pop())


@pytest.mark.parametrize("file", FILES, ids=lambda each: each.parent.name)
def test_each_is_built_in_stages_and_ends_as_nobody_special(file):
    stages = file.read_text().split("FROM ")[1:]
    names = [each.splitlines()[0].split(" AS ")[-1] for each in stages]
    assert names == ["wanted", "dependencies", "bom", "package", "${BASE}"]
    assert re.search(r"^USER 10001:10001$", stages[-1], re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", stages[-1], re.MULTILINE)
    assert not re.search(r"https?://|pip install|COPY \. ", file.read_text())


@pytest.mark.parametrize("file", FILES, ids=lambda each: each.parent.name)
def test_each_is_of_extras_that_there_are(file):
    done = wanted(WANTED.search(file.read_text())[1], "cpu")
    assert done.returncode == 0, done.stderr
    names = {Requirement(line.split("#")[0]).name for line in done.stdout.splitlines()}
    assert "numpy" in names
    assert ("torch" in names) == (file.parent.name in ("client", "pipelines"))


def test_pip_takes_the_build_of_torch_that_is_asked_for_or_none():
    def torch(build: str) -> Requirement:
        [line] = [each for each in wanted("client", build).stdout.splitlines() if each.startswith("torch")]
        return Requirement(line)

    cpu, cuda = torch("cpu"), torch("cuda")
    assert [cpu.specifier.contains(each) for each in ("2.13.0+cpu", "2.13.0", "2.13.0+cu130")] == [True, False, False]
    assert [cuda.specifier.contains(each) for each in ("2.13.0+cpu", "2.13.0", "2.13.0+cu130")] == [False, True, True]
    done = wanted("client", "rocm")
    assert (done.returncode, done.stderr) == (2, "error: TORCH is rocm; choose cpu or cuda\n")
