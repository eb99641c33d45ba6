"""Time and memory of one private step, ours and Opacus', over the step that PEFT takes without privacy.

    python benchmarks/dp_step.py [--steps 20] [--warmup 3] [--threads 1] [--device cpu]

ViT-tiny (12 layers, width 192, 3 heads) at 224 px, batch 16, LoRA r = 8, a linear head trained beside it; the weights
are random, because time does not depend on them. A step is forward, backward, clip and noise where the variant has
them, and SGD.

- peft: plain PEFT layers, no clip and no noise; the yardstick.
- plain: our merged weights, no clip and no noise.
- ours: the fused engine and the product's release, with noise from its keystream generator.
- patients: ours under unit patient, the same examples as 4 patients of 4.
- noise: the product's noise alone, on 10^6 coordinates.
- hooks: `engine: opacus`, per-example gradients by Opacus' hooks, then the product's release.
- ghost: Opacus' ghost clipping, with the noise of its own optimizer.

Time: medians of one interleaved run, the variants of a case step by step in rotated order. Memory: each variant in a
process of its own; on the CPU the peak resident size (VmHWM) above that before the model is built, all code loaded and
malloc set to give freed blocks back at once; on CUDA torch.cuda.max_memory_allocated.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from deerfield.randomness import SystemRandomness
from deerfield.runspec import RunSpec
from deerfield.types import Spend
from services.client.training.backbones import Inputs
from services.client.training.device import Device, choose, reproducible
from services.client.training.mechanism import Batch, Mechanism, Owners
from services.client.training.models import Classifier, load
from services.client.training.trainer import engine, optimizer, take_step

BATCH, CLIP, NOISE = 16, 1.0, 1.0
CASES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "B of q, v": ("B", ("q_proj", "v_proj")),
    "A of q, v": ("A", ("q_proj", "v_proj")),
    "A and B of all linear": ("AB", ("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2")),
}
VARIANTS = ("peft", "plain", "ours", "patients", "hooks", "ghost")
PER_PATIENT = 4
# (numerator, denominator, goal on the CPU by case)
TIME_GOALS = {
    ("ours", "peft"): (1.00, 1.03, 0.95),
    ("ours", "plain"): (1.04, 1.04, 1.04),
    ("patients", "ours"): (1.10, 1.10, 1.10),
}
MEMORY_GOAL = 1.01
NOISE_GOAL = 0.05

Step = Callable[[], None]


def build(case: str, folder: Path, device: Device) -> tuple[Classifier, RunSpec]:
    """A classifier for `case`, every factor and the head non-zero."""
    targets = CASES[case][1]
    spec = RunSpec.model_validate(
        {
            "name": "benchmark",
            "population": "none",
            "labels": [str(i) for i in range(10)],
            "model": {"base": "vit-tiny", "input": "image", "lora": {"rank": 8, "scale": 0.5, "targets": targets}},
            "privacy": {"epsilon": 8.0},
            "training": {"lr_adapter": 1e-3, "lr_head": 1e-3},
        }
    )
    classifier = load(folder, spec, device=device)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in classifier.entries("shared").values():
            parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    return classifier, spec


def make(variant: str, case: str, folder: Path, device: Device) -> Step:
    """One step of `variant` on a batch of random images."""
    classifier, spec = build(case, folder, device)
    factors = CASES[case][0]
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(BATCH, 3, 224, 224, generator=generator).to(device.kind)
    labels = torch.randint(10, (BATCH,), generator=generator).to(device.kind)
    inputs = {"pixel_values": images}
    sgd = optimizer(classifier, "shared", factors, spec)
    if variant == "ghost":
        return _ghost(classifier, factors, sgd, inputs, labels)
    if variant == "peft":
        classifier.activate("shared", factors)

        def peft() -> None:
            sgd.zero_grad()
            nn.functional.cross_entropy(classifier(inputs), labels).backward()  # type: ignore[no-untyped-call]
            sgd.step()

        return peft
    clip, noise = (float("inf"), 0.0) if variant == "plain" else (CLIP, NOISE)
    engaged = engine(classifier, "shared", factors, clip=clip, kind="opacus" if variant == "hooks" else "fused")
    engaged.__enter__()  # for the life of this process
    batch = Batch(inputs, labels, _patients(device) if variant == "patients" else None)
    units = len(batch.owners.sizes) if batch.owners else BATCH
    spend = Spend(unit="record", noise_multiplier=noise, sample_rate=1.0, steps=1, clip=clip)
    random = SystemRandomness()
    mechanism = Mechanism(spend=spend, units_low=units, sampling=random, noise=random)
    parameters = list(classifier.trained("shared", factors).values())

    def private() -> None:
        sums, _ = engaged.clipped_sum([batch])
        take_step(sgd, parameters, sums, mechanism)

    return private


def _patients(device: Device) -> Owners:
    """The batch as patients of PER_PATIENT examples each, laid out as the trainer does."""
    owners = Owners(torch.arange(BATCH) // PER_PATIENT, torch.full((BATCH // PER_PATIENT,), PER_PATIENT))
    return owners.to(torch.device(device.kind))


def _ghost(classifier: Classifier, factors: Any, sgd: torch.optim.SGD, inputs: Inputs, labels: torch.Tensor) -> Step:
    from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleModuleFastGradientClipping
    from opacus.optimizers.optimizer_fast_gradient_clipping import DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    classifier.activate("shared", factors)
    for module in classifier.modules():
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
            module.train()
    wrapped: Any = GradSampleModuleFastGradientClipping(classifier, max_grad_norm=CLIP, use_ghost_clipping=True)
    private: Any = DPOptimizerFastGradientClipping(
        sgd, noise_multiplier=NOISE, max_grad_norm=CLIP, expected_batch_size=BATCH
    )
    criterion: Any = DPLossFastGradientClipping(wrapped, private, nn.CrossEntropyLoss(), "mean")

    def step() -> None:
        private.zero_grad()
        criterion(wrapped(inputs), labels).backward()
        private.step()

    return step


def times(case: str, folder: Path, device: Device, arguments: argparse.Namespace) -> dict[str, float]:
    """Median seconds of a step by variant."""
    clock = time.process_time if arguments.clock == "cpu" else time.perf_counter
    made = {variant: make(variant, case, folder, device) for variant in VARIANTS} | {"noise": _noise(device)}
    found: dict[str, list[float]] = {variant: [] for variant in made}
    for i in range(arguments.steps + arguments.warmup):
        turn, order = i % len(made), tuple(made)
        for variant in order[turn:] + order[:turn]:
            _wait(device)
            began = clock()
            made[variant]()
            _wait(device)
            found[variant].append(clock() - began)
    return {variant: statistics.median(values[arguments.warmup :]) for variant, values in found.items()}


def _noise(device: Device) -> Step:
    """Noise alone, on a million coordinates: about thirty times what the first two cases train."""
    spend = Spend(unit="record", noise_multiplier=NOISE, sample_rate=1.0, steps=1, clip=CLIP)
    mechanism = Mechanism(spend=spend, units_low=BATCH, sampling=SystemRandomness(), noise=SystemRandomness())
    sums = [torch.zeros(1_000_000, device=device.kind)]

    def step() -> None:
        mechanism.release(sums)

    return step


def _wait(device: Device) -> None:
    if device.kind == "cuda":
        torch.cuda.synchronize()


def memory(variant: str, case: str, folder: Path, device: Device) -> int:
    """Peak bytes of three steps, weights included; for a fresh process."""
    if device.kind == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        for module in ("services.client.training.dplora", "services.client.training.opacus_engine"):
            importlib.import_module(module)  # code is no part of a step
        SystemRandomness().normal(8)
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    before = _resident("VmRSS")
    step = make(variant, case, folder, device)
    for _ in range(3):
        step()
    return torch.cuda.max_memory_allocated() if device.kind == "cuda" else _resident("VmHWM") - before


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def measured(variant: str, case: str, folder: Path, arguments: argparse.Namespace) -> int:
    """`memory` in a process of its own."""
    flags = ["--device", arguments.device, "--precision", arguments.precision, "--threads", str(arguments.threads)]
    code = [sys.executable, __file__, *flags, "--memory-of", variant, case, str(folder)]
    exact = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    answer = subprocess.run(code, env=os.environ | exact, capture_output=True, text=True, check=True)
    return int(json.loads(answer.stdout.splitlines()[-1]))


def main() -> None:
    """Prints one table for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="fp32")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: on a machine that others use")
    parser.add_argument("--cases", type=int, nargs="+", default=range(len(CASES)), help="which of the three, from 0")
    parser.add_argument("--no-memory", action="store_true", help="times alone")
    parser.add_argument("--memory-of", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)  # Opacus, on first layers
    torch.set_num_threads(arguments.threads)
    device = choose(arguments.device, arguments.precision)
    with reproducible():
        if arguments.memory_of:
            variant, case, folder = arguments.memory_of
            print(memory(variant, case, Path(folder), device))
            return
        with tempfile.TemporaryDirectory() as folder:
            config = transformers.ViTConfig(
                hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768
            )
            transformers.ViTModel(config).save_pretrained(folder)
            what = f"medians of {arguments.steps} interleaved steps, {arguments.clock} clock"
            print(f"{device}; torch {torch.__version__}; batch {BATCH}; {what}")
            for index in arguments.cases:
                report(index, list(CASES)[index], Path(folder), device, arguments)


def report(index: int, case: str, folder: Path, device: Device, arguments: argparse.Namespace) -> None:
    """One case: each variant over PEFT's plain step, then the ratios that have a goal."""
    took = times(case, folder, device, arguments)
    bytes_ = {} if arguments.no_memory else {v: measured(v, case, folder, arguments) for v in VARIANTS}
    print(f"\n{case}\n{'':8}{'ms':>8}{'/ peft':>8}{'MiB':>8}{'/ peft':>8}")
    for variant in VARIANTS:
        line = f"{variant:8}{took[variant] * 1e3:8.1f}{took[variant] / took['peft']:8.3f}"
        if bytes_:
            line += f"{bytes_[variant] / 2**20:8.0f}{bytes_[variant] / bytes_['peft']:8.3f}"
        print(line)
    for (over, under), goals in TIME_GOALS.items():
        _verdict(f"time {over} / {under}", took[over] / took[under], goals[index])
    _verdict("time of noise on 10^6 coordinates / ours", took["noise"] / took["ours"], NOISE_GOAL)
    if bytes_:
        _verdict("memory ours / peft", bytes_["ours"] / bytes_["peft"], MEMORY_GOAL)
    sys.stdout.flush()


def _verdict(what: str, ratio: float, goal: float) -> None:
    print(f"  {what} = {ratio:.3f}, goal {goal:.2f} on the CPU: {'met' if ratio <= goal else 'missed'}")


if __name__ == "__main__":
    main()
