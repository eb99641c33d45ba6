"""Writes the pages on the files that people write, from the models that validate them.

`python docs/run_file.py > docs/run-file.md`, and `policy`, `gate` or `compile` beside it for docs/policy.md,
docs/gate.md and docs/compile-options.md.
"""

import sys
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from deerfield.gate import Rules
from deerfield.runfile import RunFile
from pipelines.compiled.compile_options import CompileOptions
from services.client.policy import Policy

HEAD = """# The run file

One YAML file says everything about a run. Unknown keys are refused. This page is generated from the models that
validate the file (`deerfield/runspec.py`, `deerfield/runfile.py`) and a test holds it against them.

`embedded:` is for one machine: it stands for what each hospital's own policy says on a cluster, and no part of it
reaches the aggregator. Relative paths in it are relative to the run file. Options of a strategy stand beside its name,
as in `strategy: {name: deer, regulator: off}`; `deerfield strategies` lists them.
"""

POLICY_HEAD = """# The site's policy

One YAML file that belongs to the hospital: what the public names in a run mean here, and what may be done with it. A
run that asks for more is refused before a record is read, and all that the aggregator hears is the reason's name.
Unknown keys are refused, and so is a site without a policy. `examples/site-policy.yaml` is one to begin with. This
page is generated from the models that validate the file (`services/client/policy.py`) and a test holds it against
them.

A run names a population, never a file: data that no population is bound to cannot be reached. Write absolute paths;
others are relative to the folder that the site is started in.

## Registering a population

```text
deerfield register POLICY --site NAME --state DIR [--population NAME] [--json]
```

looks at the data and prints, for the hospital alone, how many rows and units there are, how many examples a unit has,
and the labels as found. Some things must be mended first, and then the command ends with exit code 2 and no ledger
changes: a column that is missing, rows that say nobody's name where each patient is protected, fewer units than
`units_low` or more than `units_high`. Others are warnings: units above `examples_high`, rows that cannot be used,
fewer than 1,000 units. Declare the bounds with room to spare: they are public, and that a hospital takes part says
that it keeps them.

Then the population's ledger notes a salted commitment to the data: an HMAC-SHA256, under a secret in the state
folder, of the bytes of the file (or of every file of a folder) and of its column mapping. A site hashes its data once
when it starts on a population, and declines a run (`NOT_MAPPED`) whose population was never registered, or whose data
are others than were registered. That does not depend on what is in the data: once registered, a population never
declines because of a record. When the data change or are exported again, register them again; the ledger goes on,
with the budget that is left. A table of paths commits to the table alone, a hub id to its name.

## What the hub is told before a run asks

When a site starts it tells the aggregator of its populations what `reports:` of each allows, so that a run which it
would decline is found before others spend on it ([partition.md](partition.md)):

| `reports` | the hub is told |
|---|---|
| `nothing` | not even the population's name |
| `registered` (default) | its name, and the salted commitment to its data, if they are registered, as in every update |
| `terms` | also `unit`, `units_low` and `units_high`, which you have declared as public |

No data are read for it, and no count is told at any level: the bounds are what this file declares. What is said stands
until the site starts again; operators see it by `deerfield runs sites`.

`registration: on_start` is for trials on one machine, and `deerfield run` writes it: what is there when a run starts
is registered, what a person would be told goes to the site's log, and only a missing column stops the site.
"""

GATE_HEAD = """# The registry gate

`deerfield promote` holds one version of a registered model against the consortium's rules, and makes it the champion
if it keeps every one. The aggregator moves the alias `champion` on a verdict that passed, and on `rollback`. Before it
does, it judges the version again by what it knows itself
([registry.md](registry.md#what-the-aggregator-checks-and-what-it-believes)); what it has to believe is the evaluation.
A rule that cannot be shown to hold fails: a number that is missing, infinite or not a number never passes.

```text
deerfield promote MODEL[/VERSION] --rules gate.yaml --evaluation evaluation.json [--manifest manifest.json] [--dry-run]
deerfield rollback MODEL --reason TEXT [--champion VERSION]
deerfield models list | show MODEL | diff MODEL VERSION VERSION
```

They read MLflow (`--tracking`, MLFLOW_TRACKING_URI) and write nothing there: the verdict goes to the aggregator
(`--aggregator`, DEERFIELD_AGGREGATOR), which keeps it and moves the alias. Without a version, the one with the alias
`candidate` is judged. `promote` prints a row for each rule, and ends with exit code 0 if the version is champion, 3 if
a rule refused it, 2 if something in the question is wrong, 1 if the aggregator or MLflow does not answer. A refused
verdict is kept too: `deerfield models show` has it. In a pipeline the steps `gate` and `promote` do the same.

## What is judged

| rule | passes where | evidence |
|---|---|---|
| `minimum` | the lower bound of the metric's interval reaches `minimum` | evaluation |
| `test_set` | the evaluation is on the test set that counts, and that has enough examples | evaluation, manifest |
| `regression` | the lower bound of candidate minus champion is at least minus `regression: margin` | evaluation |
| `worst_site` | the metric reaches `worst_site: minimum` where it is lowest | evaluation |
| `worst_site_regression` | that site is not below the champion's worst by more than `worst_site: margin` | evaluation |
| `calibration` | the expected calibration error is at most `calibration` | evaluation |
| `epsilon` | what each site spent in the run is known, finite and within its limit | proof, tags |
| `lifetime_epsilon` | so is what its population has spent in all runs so far | proof |
| `delta` | the run's delta and that of each population's life are at most `delta` | run file, proof |
| `proof` | every attestation and countersigned head of the run verifies, and none is missing | ledger mirror |
| `lineage` | run file, code, base model, each site's data commitment, hub-owned data: all known | MLflow, manifest |
| `leakage` | no example of the test set is among training data that the hub owns | evaluation, manifest |
| `freshness` | the evidence is of this run, digest and version, against the champion that there is now | all |

`worst_site`, `worst_site_regression` and `calibration` are judged where the rules file asks for them, all others
whatever it says.

**Minimum.** The interval comes from resampling the test set; its lower bound is what the test set can vouch for. With
`bound: value` the metric as measured is enough.

**Test set.** `test_set: minimum` examples at the least: where a model gets every one of a few examples right, the
interval says that it is never wrong. Where the hub owns the data, the test set is the part that the run's manifest
keeps apart, by its sha256 and its number of examples. A consortium's manifest has no such part: name the sha256 of the
hub's test set as `test_set: sha256`, or any will do, and the row says so. A sha256 of the rules counts before the
manifest's.

**Regression** is a test of non-inferiority: candidate and champion answer the same examples, each resample counts both,
and the lower bound of the difference must not be below minus the margin. With a margin of 0 the
whole interval must be at 0 or above. The sentence says when the candidate is better with confidence. A first version
has no champion, passes, and says so.

**Confidence.** The gate takes the intervals as they were computed. An evaluation with less confidence than the rules
ask for fails; more is stricter, and welcome.

**Worst site.** The metrics by site come from the test set's site column, or else from what sites report under their
policy. They are taken as measured: few examples make them noisy, so give the margin room.

**Epsilon.** Every site of the run file is judged, each against the smallest of its limits: the rules' for all, or the
rules' own for that site, and the run file's. Of what the registry says and what the proof recomputes, the larger
counts. A site that took no task spent nothing and is left out. One that took a task and delivered nothing has spent
what only its own ledger knows: it fails unless `epsilon: absent: allowed`.

**Leakage.** Training data stay at the hospitals, and no hash of them leaves. Only where the hub owns the data, in a
simulation, can the test set be held against them, and there it must have been. The manifest that the run has kept
([partition.md](partition.md#the-manifest)) says which it is: `simulation` or `consortium`. A run that has kept none is
refused. `--manifest FILE` gives it one, which stays: a run's manifest is never replaced. An operator who calls a
simulation a consortium is believed, under the operator's name in the audit log.

**Freshness.** If the run has kept an evaluation.json, as the pipeline's step does, the one that is given must have the
same sha256; where it has kept none, the row says so. A given manifest must be the one that the run has kept, and that
lineage.json names.

**Proof.** Signatures prove who signed. Name the aggregator's key under `proof:` (`deerfield aggregator key FILE` prints
it, on the aggregator's machine), and whoever can write to MLflow still cannot make up a mirror; without it, the key
that signed the first phase is taken for the aggregator's. A site's key that an operator pinned in mid run is no
refusal, and the row says so, unless `site_keys` names that site ([proof.md](proof.md#a-key-that-was-pinned-anew)).

**Between the gate and the promotion** the champion may change. The verdict names the champion that it compared with;
the aggregator refuses it if there is another one by then, says which, and moves nothing: evaluate again.

**Whose rules.** The verdict holds its rules, and the aggregator judges by them: who sends it chooses them. Start the
aggregator with `--gate-rules FILE` (DEERFIELD_GATE_RULES), and it accepts verdicts by those rules alone; comments and
the order of keys do not matter.

## The verdict

`verdict.json`, an artifact of the version's MLflow run, has `passed`, `model`, `version`, `expected_champion`, `time`,
the rows (`rules`: `rule`, `passed`, `value`, `limit`, `detail`) and all that they were said on (`evidence`, with the
rules themselves). A number that is not known, or infinite, is null there, and the `detail` says which. The version's
tag `deerfield.verdict` is `passed` or `refused`. Judging a version again puts the new verdict in the place of the old
one; the aggregator's history has both.

## The rules file

Unknown keys are refused. `examples/gate.yaml` is one to begin with. A pipeline that is given no rules judges by the
defaults below, with a minimum of 0. What follows is generated from the models that
validate the file (`deerfield/gate/rules.py`), and a test holds it against them.
"""

COMPILE_HEAD = """# Compile options

What is decided when the pipelines are compiled ([pipelines.md](pipelines.md)), in a file for `deerfield pipelines
compile --options FILE`: YAML, in which unknown keys are refused; without a file the defaults count. What is a default
of a pipeline's parameter can be given another value for each run; the rest stands in the compiled pipeline. A
toleration has the keys `key`, `operator` (`Exists` or `Equal`), `value` and `effect`. This page is generated from the
models that validate the file (`pipelines/compiled/compile_options.py`), and a test holds it against them.
"""


def sections(model: type[BaseModel], title: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """Every model inside `model`, with the key that leads to it."""
    yield title, model
    for name, field in model.model_fields.items():
        path, named = f"{title}.{name}".removeprefix("top level."), field.annotation
        if get_origin(named) is Mapping:
            path, named = f"{path}.NAME", get_args(named)[1]
        if isinstance(named, type) and issubclass(named, BaseModel):
            yield from sections(named, path)


def row(name: str, field: FieldInfo) -> str:
    """One key: type, default, limits, meaning."""
    default = "required" if field.is_required() else f"`{_plain(field.default)}`"
    meaning = " ".join(filter(None, (field.description, _limits(field))))
    return f"| `{name}` | {_type(field.annotation)} | {default} | {meaning} |"


def _limits(field: FieldInfo) -> str:
    signs = {Ge: ("ge", "≥"), Gt: ("gt", ">"), Le: ("le", "≤"), Lt: ("lt", "<")}
    known = [(signs[type(limit)], limit) for limit in field.metadata if type(limit) in signs]
    said = [f"{sign} {getattr(limit, key):g}" for (key, sign), limit in known]
    return f"({', '.join(said)})" if said else ""


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    origin = get_origin(annotation)
    if origin is tuple:
        return "list"
    if origin is not None and getattr(origin, "__name__", "") in ("Mapping", "dict"):
        return "mapping"
    parts = [part for part in get_args(annotation) if part is not type(None) and isinstance(part, type)]
    plain = annotation if isinstance(annotation, type) else parts[0] if parts else str
    return {int: "integer", float: "number", str: "text", bool: "yes/no"}.get(plain, plain.__name__)


def _plain(value: Any) -> str:
    if isinstance(value, BaseModel):
        return str(value.model_dump(exclude_defaults=True) or "its defaults")
    if isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        return f"[{', '.join(str(each.model_dump(exclude_defaults=True)) for each in value)}]"
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return "none" if value is None else str(value)


def markdown(head: str = HEAD, top: type[BaseModel] = RunFile) -> str:
    """The whole page."""
    lines = [head]
    for title, model in sections(top, "top level"):
        lines.append(f"## {title}\n\n{(model.__doc__ or '').strip()}\n")
        lines.append("| key | type | default | meaning |\n|---|---|---|---|")
        lines.extend(row(name, field) for name, field in model.model_fields.items())
        lines.append("")
    return "\n".join(lines)


def policy_markdown() -> str:
    """The page on the policy."""
    return markdown(POLICY_HEAD, Policy)


def gate_markdown() -> str:
    """The page on the registry gate."""
    return markdown(GATE_HEAD, Rules)


def compile_markdown() -> str:
    """The page on compile options."""
    return markdown(COMPILE_HEAD, CompileOptions)


PAGES = {"policy": policy_markdown, "gate": gate_markdown, "compile": compile_markdown}

if __name__ == "__main__":
    print(PAGES.get("".join(sys.argv[1:]), markdown)(), end="")
