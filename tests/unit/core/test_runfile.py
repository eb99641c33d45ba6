"""A run file is refused in one sentence that names the key, the value and what to do."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from deerfield.errors import InvalidInput
from deerfield.runfile import load, load_spec

RUN: dict[str, Any] = {
    "name": "trial",
    "population": "notes",
    "labels": ["a", "b"],
    "model": {"base": "some/model", "input": "text"},
    "privacy": {"unit": "record", "epsilon": 3},
    "embedded": {"source": {"path": "notes.csv"}},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """RUN with the key at the dotted `path` set to `value`."""
    run: dict[str, Any] = yaml.safe_load(yaml.safe_dump(RUN))
    section, keys = run, path.split(".")
    for key in keys[:-1]:
        section = section.setdefault(key, {})
    section[keys[-1]] = value
    return run


def write(folder: Path, run: Any) -> Path:
    path = folder / "run.yaml"
    path.write_text(run if isinstance(run, str) else yaml.safe_dump(run))
    return path


def test_defaults_fill_a_small_file(tmp_path):
    run = load(write(tmp_path, RUN))
    assert run.spec.strategy == {"name": "deer"}
    assert (run.model.lora.rank, run.privacy.clip, run.privacy.sample_rate) == (8, 1.0, 0.125)
    assert run.spec.steps(2) == 16


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("privcy", {}, "did you mean 'privacy'"),
        ("model.lora.rnk", 4, "did you mean 'rank'"),
        ("privacy", [1], "privacy is [1]: it must be a mapping of keys"),
        ("privacy.epsilon", 0, "greater than 0"),
        ("privacy.epsilon", -1, "greater than 0"),
        ("privacy.delta", 1e-4, "less than or equal to 0.00001"),
        ("privacy.unit", "family", "'record'"),
        ("privacy.examples_per_unit", 4, "examples_per_unit is for unit patient, not 'record': leave it out"),
        ("privacy.clip", None, "without a bound"),
        ("privacy.sample_rate", 1.5, "less than or equal to 1"),
        ("model.lora.rank", 0, "greater than or equal to 1"),
        ("model.head", {"kind": "prompt", "prompts": "an image"}, "{label}"),
        ("labels", ["a", "a"], "twice"),
        ("rounds", "many", "rounds is 'many'"),
        ("federation", {"sites": ["x", "y"], "quorum": 3}, "more than the 2 sites"),
        ("federation", {"sites": ["x", "x"]}, "twice"),
        ("federation", {"sites": ["x"], "weights": {"z": 1}}, "not one of the sites"),
        ("embedded.partition", {"kind": "column"}, "source: site:"),
        ("embedded.metrics", "clear", "infinite"),
        ("seed", -1, "greater than or equal to 0"),
        ("name", "../../etc", "pattern"),
    ],
)
def test_a_wrong_key_or_value_is_named_in_one_sentence(tmp_path, path, value, says):
    with pytest.raises(InvalidInput) as refusal:
        load(write(tmp_path, changed(path, value)))
    message = str(refusal.value)
    assert says in message
    assert path.split(".")[-1] in message or path.split(".")[0] in message
    assert "\n" not in message
    assert message.startswith(str(tmp_path / "run.yaml"))


def test_privacy_needs_an_epsilon_and_none_refuses_one(tmp_path):
    with pytest.raises(InvalidInput, match="epsilon is missing"):
        load(write(tmp_path, changed("privacy", {"unit": "record"})))
    with pytest.raises(InvalidInput, match="leave epsilon out"):
        load(write(tmp_path, changed("privacy", {"unit": "none", "epsilon": 3})))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a\n- b", ": a run file is a mapping of keys, such as name:, and this is a list"),
        ("", ": a run file is a mapping of keys, such as name:, and this is empty"),
        ("hello", ": a run file is a mapping of keys, such as name:, and this is 'hello'"),
        ("name: r\nlabels: [a, b", ", line 2, column 14: not YAML: expected ',' or ']', but got '<stream end>'"),
        ("name: a: b", ", line 1, column 8: not YAML: mapping values are not allowed here"),
        ("name: \x01", ": not YAML: unacceptable character #x0001: special characters are not allowed"),
        ("name: a\nname: b", ", line 2, column 1: the key name stands there twice; keep one of them"),
        ("name: 2026-02-30", ": not YAML: day is out of range for month"),
    ],
)
def test_a_file_that_is_no_run_is_said_to_be_none(tmp_path, text, says):
    path = write(tmp_path, text)
    for read in (load, load_spec):
        with pytest.raises(InvalidInput) as refusal:
            read(path)
        assert str(refusal.value) == f"{path}{says}"


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        load(tmp_path / "absent.yaml")


def test_off_and_no_are_words(tmp_path):
    text = yaml.safe_dump(RUN).replace("- a\n- b", "- no\n- yes") + "\nstrategy: {name: deer, regulator: off}\n"
    run = load(write(tmp_path, text))
    assert run.labels == ("no", "yes")
    assert run.strategy["regulator"] == "off"


def test_paths_are_relative_to_the_file(tmp_path):
    (tmp_path / "notes.csv").write_text("text,label\n")
    assert load(write(tmp_path, RUN)).embedded.source.path == str(tmp_path / "notes.csv")


def test_the_hash_of_a_run_follows_its_meaning(tmp_path):
    spec = load(write(tmp_path, RUN)).spec
    assert spec.sha256 == load(write(tmp_path, {k: RUN[k] for k in reversed(RUN)})).spec.sha256
    assert spec.sha256 != load(write(tmp_path, changed("seed", 1))).spec.sha256


def test_nothing_of_the_embedded_section_is_in_the_run(tmp_path):
    run = load(write(tmp_path, changed("embedded.source.path", "/secret/place.csv")))
    assert "secret" not in run.spec.canonical()


def test_weights_are_shared_out_over_the_sites_that_answered(tmp_path):
    spec = load(write(tmp_path, changed("federation", {"sites": ["x", "y", "z"], "weights": {"x": 2}}))).spec
    assert spec.shares(["x", "y"]) == pytest.approx((2 / 3, 1 / 3))
    assert spec.shares(["y", "z"]) == pytest.approx((0.5, 0.5))
