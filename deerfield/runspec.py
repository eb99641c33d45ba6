"""The run file: one frozen, validated value that says everything public about a run.

Unknown keys are refused, and every default stands here and nowhere else; `docs/run-file.md` is tested against it.
The `embedded:` section of a file is not part of a run: it stands for what each site's policy holds on a cluster.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from math import ceil
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from deerfield.types import Unit

NAME = r"^[A-Za-z0-9][A-Za-z0-9._ -]{0,62}$"
Name = Annotated[str, Field(pattern=NAME)]
EXAMPLES_PER_UNIT = 4  # of one patient in one step: about the notes or images of one visit
DELTA_LIMIT = 1e-5  # privacy.md: delta <= min(1e-5, 1 / (10 n_high)); the second bound is checked where n_high is known


class Section(BaseModel):
    """A part of a run file: frozen, and a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Lora(Section):
    """The adapter: `s B A` beside each target layer."""

    rank: int = Field(8, ge=1, le=1024, description="r, the inner width of every adapter")
    scale: float = Field(1 / 32, gt=0, le=64, description="s = alpha / r; 1/32 to 1/8 suit the gauge")
    targets: tuple[str, ...] = Field(
        ("q_proj", "v_proj", "query", "value"),
        min_length=1,
        description="layers to adapt: names, path endings or * patterns of linear layers and 1x1 convolutions",
    )


class Head(Section):
    """What turns features into scores of the labels."""

    kind: Literal["linear", "prompt"] = Field(
        "linear", description="linear: trained with the adapter; prompt: cosine to frozen text features"
    )
    length: float = Field(4.0, gt=0, le=100, description="linear: features are scaled to this L2 norm")
    prompts: str = Field("a photo of {label}", description="prompt: the sentence that each label is put into")
    temperature: float = Field(20.0, gt=0, le=1000, description="prompt: factor on the cosine where the model has none")

    @model_validator(mode="after")
    def _has_a_place_for_the_label(self) -> "Head":
        if self.kind == "prompt" and "{label}" not in self.prompts:
            raise ValueError(f"prompts: {self.prompts!r} has no place for the label; write {{label}} in it")
        return self


class Model(Section):
    """The frozen base model and what is trained on it."""

    base: str = Field(description="public name of the base model, usually its hub id; sites map it to a folder")
    digest: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="sha256 of its weights; filled in if left out"
    )
    input: Literal["text", "image"] = Field(description="what the model reads")
    pooling: Literal["auto", "mean", "cls"] = Field("auto", description="how token features become one vector")
    max_tokens: int = Field(64, ge=4, le=8192, description="text: tokens kept of each example")
    lora: Lora = Field(Lora(), description="the adapter")
    head: Head = Field(Head(), description="from features to scores")


class Privacy(Section):
    """What one epsilon protects, and how much of it this run may spend at each site."""

    unit: Unit = Field(
        "record",
        description="record: one example; patient: all examples of one patient, by the source's patient column; "
        "site: all that one site contributes, with noise at the aggregator, for 10,000 sites and more; "
        "none: no privacy, epsilon is infinite",
    )
    epsilon: float | None = Field(None, gt=0, le=1000, description="of the whole run; required unless unit is none")
    delta: float = Field(
        1e-6, gt=0, le=DELTA_LIMIT, description="of the whole run; runs add up to 1e-5 or 1/(10 x units) at most"
    )
    clip: float | None = Field(
        1.0,
        gt=0,
        description="joint L2 bound C on one unit's gradient, under unit site on a site's update; null needs unit none",
    )
    sample_rate: float = Field(
        0.125,
        gt=0,
        le=1,
        description="q: Poisson probability of a unit, under unit site of an example, to be in a step",
    )
    examples_per_unit: int | None = Field(
        None,
        ge=1,
        le=4096,
        description=f"patient: most examples of one patient in one step, default {EXAMPLES_PER_UNIT}; where there are "
        "more, they take turns",
    )
    spare_phases: int = Field(
        0,
        ge=0,
        le=100_000,
        description="phases that may be trained twice after a crash or a miss; paid for from the start",
    )

    @model_validator(mode="before")
    @classmethod
    def _caps_what_a_patient_brings(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("unit") == "patient" and data.get("examples_per_unit") is None:
            return {**data, "examples_per_unit": EXAMPLES_PER_UNIT}
        return data

    @model_validator(mode="after")
    def _is_a_guarantee(self) -> "Privacy":
        if self.unit != "none" and self.epsilon is None:
            raise ValueError(f"epsilon is missing: unit {self.unit!r} needs one (or write unit: none)")
        if self.unit == "none" and self.epsilon is not None:
            raise ValueError("unit 'none' spends an infinite epsilon: leave epsilon out, or choose unit: record")
        if self.unit != "none" and self.clip is None:
            raise ValueError("clip is null: without a bound on each unit there is no privacy; give one, such as 1.0")
        if self.unit != "patient" and self.examples_per_unit is not None:
            raise ValueError(f"examples_per_unit is for unit patient, not {self.unit!r}: leave it out")
        return self


class Training(Section):
    """Local training: SGD, fresh for each phase."""

    lr_adapter: float | None = Field(
        None, gt=0, description="default: deer and ffa 0.8, others 0.05; a quarter at epsilon <= 1"
    )
    lr_head: float | None = Field(None, gt=0, description="default: 0.2, 0.5, 0.8 up to epsilon 1, 3, and above")
    momentum: float = Field(0.9, ge=0, lt=1, description="of the local SGD, fresh for each phase")
    weight_decay: float = Field(0.0, ge=0, lt=1, description="of the local SGD")
    microbatch: int = Field(64, ge=1, description="examples in memory at once; changes memory, never the result")
    engine: Literal["fused", "opacus"] = Field("fused", description="who computes the clipped gradients")


class Federation(Section):
    """Who takes part, and when a phase closes."""

    sites: tuple[Name, ...] = Field((), description="the sites of the run; filled in by an embedded partition")
    weights: Mapping[Name, float] = Field({}, description="of the sites in the mean; 1 where not named")
    quorum: int | None = Field(
        None,
        ge=1,
        description="updates that close a phase at its deadline; default: all sites; under unit site any number does",
    )
    deadline_s: float = Field(
        86400.0,
        gt=0,
        description="seconds without progress, such as a step or a chunk, after which a phase closes with the quorum, "
        "or fails; default: a day, so that a link may be down for hours; under unit site every phase waits so long "
        "for a lost site",
    )
    lifetime_epsilon: float | None = Field(
        None, gt=0, description="the consortium's rule: a site whose population may spend more in its life is refused"
    )
    norm_limit: float | None = Field(
        None, gt=0, description="joint L2 norm above which an update is refused; under unit site never above the clip"
    )
    robust: Literal["none", "median", "trimmed_mean"] = Field(
        "none",
        description="instead of the weighted mean, what few bad sites cannot move far, each site counted once: the "
        "median or a trimmed mean of each coordinate; for unit none, strategies deer, ffa and head",
    )
    trim: float = Field(
        0.2, ge=0, lt=0.5, description="trimmed_mean: share of the sites left out at either end of each coordinate"
    )

    @model_validator(mode="after")
    def _names_sites_once(self) -> "Federation":
        if len(set(self.sites)) < len(self.sites):
            raise ValueError(f"sites: {', '.join(self.sites)} names a site twice")
        if self.sites and (strangers := set(self.weights) - set(self.sites)):
            raise ValueError(f"weights: {', '.join(sorted(strangers))} is not one of the sites")
        if self.sites and self.quorum is not None and self.quorum > len(self.sites):
            raise ValueError(f"quorum: {self.quorum} is more than the {len(self.sites)} sites")
        if any(weight <= 0 for weight in self.weights.values()):
            raise ValueError("weights must be above 0")
        if self.robust != "none" and len({self.weights.get(site, 1.0) for site in self.sites or self.weights}) > 1:
            raise ValueError(f"weights: {self.robust} counts every site once; leave the weights out")
        return self


class RunSpec(Section):
    """A run, as the aggregator stores it and every site reads it. Holds no path and nothing private."""

    name: Name = Field(description="name of the run, of its MLflow experiment and of the registered model")
    seed: int = Field(
        0, ge=0, lt=2**63, description="public: initial adapter, partitions; sampling only under unit none"
    )
    strategy: Mapping[str, str | int | float | bool] = Field({"name": "deer"}, description="name, and its options")
    rounds: int = Field(8, ge=1, le=100_000, description="of the strategy; a round of deer is two exchanges")
    epochs: int = Field(1, ge=1, le=1000, description="local epochs for each exchange")
    population: Name = Field(description="what to train on; each site's policy says what that is")
    labels: tuple[str, ...] = Field(min_length=2, description="the public label set, in the order of the scores")
    model: Model = Field(description="the frozen base model and what is trained on it")
    privacy: Privacy = Field(description="what one epsilon protects, and how much the run may spend")
    training: Training = Field(Training(), description="local training")
    federation: Federation = Field(Federation(), description="who takes part")
    adapter: Mapping[str, tuple[int, ...]] = Field(
        {}, description="shapes of the exchanged tensors; filled in from the base model, verified by every site"
    )

    convolutions: tuple[str, ...] = Field(
        (),
        description="adapted layers that are 1x1 convolutions; filled in: PEFT stores their factors four-dimensional",
    )

    @model_validator(mode="before")
    @classmethod
    def _accepts_a_bare_strategy_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("strategy"), str):
            return {**data, "strategy": {"name": data["strategy"]}}
        return data

    @model_validator(mode="after")
    def _names_a_strategy_and_labels_once(self) -> "RunSpec":
        if not isinstance(self.strategy.get("name"), str):
            raise ValueError("strategy: name is missing; write strategy: {name: deer}")
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("labels: a label stands there twice")
        return self

    @model_validator(mode="after")
    def _is_robust_without_noise(self) -> "RunSpec":
        if self.federation.robust != "none" and self.privacy.unit != "none":
            raise ValueError(
                f"federation: robust: {self.federation.robust} is for unit none, not {self.privacy.unit!r}: over "
                "noised updates it follows the noise, and under unit site no noise is fitted to it; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _counts_sites_alike(self) -> "RunSpec":
        if self.privacy.unit != "site":
            return self
        sites, weights = self.federation.sites, self.federation.weights
        each = {weights.get(site, 1.0) for site in sites} if sites else {1.0, *weights.values()}
        if len(each) > 1:
            raise ValueError(
                f"federation: weights: under unit site every site counts alike, and these are from {min(each):g} to "
                f"{max(each):g}: leave them out"
            )
        if sites and self.privacy.delta > (limit := 1 / (10 * len(sites))):
            raise ValueError(
                f"privacy: delta: {self.privacy.delta:g} is above 1/(10 x {len(sites)} sites) = {limit:.1e}; "
                "write a smaller one"
            )
        return self

    def shares(self, sites: Sequence[str]) -> tuple[float, ...]:
        """The weight of each of `sites` in a mean over just them, summing to 1: the aggregator's choice, not theirs."""
        raw = [self.federation.weights.get(site, 1.0) for site in sites]
        return tuple(weight / sum(raw) for weight in raw)

    def steps(self, epochs: int) -> int:
        """Optimizer steps of `epochs` local epochs: one epoch is 1/q steps, rounded up."""
        return epochs * ceil(1 / self.privacy.sample_rate - 1e-9)

    def releases(self, epochs: int) -> int:
        """Noised sums that a phase of `epochs` local epochs is charged for: its optimizer steps.

        Under unit site those are the site's own affair, and what costs is the one sum over the sites.
        """
        return 1 if self.privacy.unit == "site" else self.steps(epochs)

    @property
    def release_rate(self) -> float:
        """The probability of a unit to be in a noised sum: q; under unit site 1, because who takes part is seen."""
        return 1.0 if self.privacy.unit == "site" else self.privacy.sample_rate

    def takes(self, other: "RunSpec") -> bool:
        """Whether what the other run has trained is an adapter of this run's model, for the same labels."""
        mine, theirs = (
            (spec.model.model_copy(update={"base": ""}), spec.labels, dict(spec.adapter)) for spec in (self, other)
        )
        return mine == theirs

    @property
    def learning_rates(self) -> tuple[float, float]:
        """(adapter, head), which `strategy.completed` has filled in where the run file left them out."""
        adapter, head = self.training.lr_adapter, self.training.lr_head
        if adapter is None or head is None:
            raise ValueError("training: lr_adapter or lr_head is missing: the run was never completed")
        return adapter, head

    @property
    def sha256(self) -> str:
        """Hash of the canonical JSON: equal files, equal hash."""
        return sha256(self.canonical().encode()).hexdigest()

    def canonical(self) -> str:
        """The run as JSON with sorted keys and every default written out: what travels."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
