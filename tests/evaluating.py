"""A consortium with finished models, whose sites score them: real policies, ledgers, models and data, no sockets."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import structlog
import torch
import yaml

from deerfield.errors import RunEnded
from deerfield.exchange import Event
from deerfield.manifest import assemble
from deerfield.runspec import RunSpec
from deerfield.tensors import Tensors
from pipelines.embedded.simulation import LocalLink
from services.aggregator.assembly import Aggregator
from services.client import workbench
from services.client.custody.custody import Custody
from services.client.policy import Policy
from services.client.site import Site
from services.client.training import backbones, models
from tests.fakes import Clock, TeachingSite
from tests.integration.aggregator.conftest import open_aggregator
from tests.unit.client import tiny

SITES = ("east", "north", "west")


def notes(folder: Path, site: str, patients: int = 40) -> Path:
    """A file of two notes for each patient; the first word of most says the label."""
    rng, path = np.random.default_rng(len(site)), folder / f"{site}.csv"
    rows = [
        f"{site}{number},{rng.choice([tiny.LABELS[number % 3], 'pain'])} cough,{tiny.LABELS[number % 3]}"
        for number in range(patients)
        for _ in range(2)
    ]
    path.write_text("patient,text,label\n" + "\n".join(rows) + "\n")
    return path


@dataclass
class Hospitals:
    """Sites with a tiny base model and data of their own below `folder`, at one aggregator."""

    folder: Path
    aggregator: Aggregator

    @cached_property
    def base(self) -> Path:
        """The folder of the base model."""
        return tiny.save("bert", self.folder / "model")

    @cached_property
    def spec(self) -> RunSpec:
        """A run over the sites, without privacy; evaluations take its model and its sites."""
        made = tiny.spec("bert", privacy={"unit": "none"})
        classifier = models.load(self.base, made)
        found = {
            **made.model_dump(),
            "rounds": 1,
            "strategy": {"name": "ffa"},
            "adapter": classifier.schema(),
            "convolutions": classifier.convolutions(),
            "federation": {"sites": SITES, "quorum": 1},
        }
        found["model"]["digest"] = backbones.digest(self.base)
        return RunSpec.model_validate(found)

    def changed(self, **changes: object) -> RunSpec:
        """The run with other sections."""
        return RunSpec.model_validate({**self.spec.model_dump(), **changes})

    def trained(self, seed: int, **changes: object) -> str:
        """The name of a run that has finished with a model of its own for each seed."""
        away = {"population": "elsewhere", "federation": {"sites": ["teacher"]}}
        spec, rng = self.changed(**away, **changes), np.random.default_rng(seed)
        target: Tensors = {n: rng.standard_normal(s).astype(np.float32) for n, s in spec.adapter.items()}
        run = self.aggregator.runs.start(spec, f"trained {seed}")
        self._work(run, [TeachingSite("teacher", LocalLink(self.aggregator, "teacher", run), target)])
        return run

    def model(self, run: str) -> Tensors:
        """What a run has ended with."""
        return assemble(self.aggregator.runs.get(run).model, self.aggregator.desk.published.get)

    def policy(self, site: str, **changes: object) -> Policy:
        """A policy that lets noised counts out, but for its `changes`; those of its population are `population`."""
        source = {"path": str(notes(self.folder, site)), "patient": "patient"}
        population = {
            "source": source,
            "unit": "patient",
            "epsilon": 20.0,
            "units_low": 20,
            "units_high": 60,
            "validation": 0.5,
            "registration": "on_start",
            **changes.pop("population", {}),  # type: ignore[dict-item]
        }
        known = {"models": {self.spec.model.digest: str(self.base)}, "metrics": "dp"}
        return Policy.model_validate({"populations": {"p": population}, **known, **changes})

    def plan(self, site: str, spec: RunSpec, rules: Policy) -> dict[str, object]:
        """What `deerfield plan` says of the site, by its policy and its ledger."""
        from services.client.custody.operator import plan_sites

        path = self.folder / f"{site}.yaml"
        path.write_text(yaml.safe_dump(rules.model_dump(mode="json")))
        state = self.folder / site
        asked = {"policy": str(path), "state": str(state) if state.exists() else None}
        found: dict[str, object] = plan_sites({"spec": spec.model_dump(mode="json"), "sites": {site: asked}})[site]
        return found

    def run(self, spec: RunSpec, policies: dict[str, Policy], request_id: str = "evaluation") -> str:
        """Lets the sites of `policies` answer a run to its end; answers its name."""
        run = self.aggregator.runs.start(spec, request_id)
        with ExitStack() as stack:
            held = {site: stack.enter_context(self.custody(site, rules)) for site, rules in policies.items()}
            self._work(run, [self.site(site, policies[site], custody, run) for site, custody in held.items()])
        return run

    def custody(self, site: str, rules: Policy) -> Custody:
        """The site's state folder."""
        return Custody(site, rules, self.folder / site)

    def site(self, name: str, rules: Policy, custody: Custody, run: str) -> Site:
        """A real site."""
        build = partial(workbench.build, name, rules, custody.split_key)
        link = LocalLink(self.aggregator, name, run)
        return Site(name=name, link=link, account=custody.account, build=build, beats=False)

    def events(self, run: str, kind: str) -> list[Event]:
        """What of this kind has happened to the run."""
        return [event for event in self.aggregator.runs.events(run, 0) if event.kind == kind]

    def _work(self, run: str, sites: list[Site] | list[TeachingSite]) -> None:
        """Lets each site answer what there is, and closes what is due, until nothing moves."""
        moved = True
        while moved:
            moved = False
            for site in sites:
                try:
                    moved |= site.step()
                except RunEnded:
                    return
            moved |= bool(self.aggregator.coordinator.close_due())


@contextmanager
def prepared(kind: type[Hospitals], folder: Path) -> Iterator[Hospitals]:
    """Hospitals of a `kind` at an aggregator of their own, once they have done what `prepare` says."""
    torch.set_num_threads(1)
    found = kind(folder, open_aggregator(folder / "aggregator", Clock()))
    with structlog.testing.capture_logs():
        found.prepare()
        yield found
    found.aggregator.desk.store.close()
