"""The images of a cluster, built by `make` on the look-alike base, each of them once for all tests that ask for it."""

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from deerfield import __version__
from tests.podman import Engine

ROOT = Path(__file__).parents[1]
NAMES = ("aggregator", "client", "pipelines", "tracking")
BUILD_S = 1800.0
# as a cluster's restricted pods are
CONFINED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=all", "--security-opt=no-new-privileges", "--network=none")


@dataclass
class Images:
    """What has been built, and how long it took; layers that podman has from before it takes from there."""

    engine: Engine
    base: str
    flags: str
    seconds: dict[str, float] = field(default_factory=dict)

    def built(self, name: str) -> str:
        """The image of this name."""
        image = f"deerfield-{name}:{__version__}"
        if name not in self.seconds:
            here, began = os.environ | self.engine.environment, time.monotonic()
            argv = ["make", f"image-{name}", f"BASE={self.base}", f"IMAGE_FLAGS={self.flags}"]
            done = subprocess.run(
                argv, cwd=ROOT, env=here, capture_output=True, text=True, timeout=BUILD_S, check=False
            )
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
            self.seconds[name] = time.monotonic() - began
        return image

    def size(self, image: str) -> int:
        """Bytes of all its layers."""
        return int(self.engine.podman("image", "inspect", "--format={{.Size}}", image))

    def over_base(self, name: str) -> int:
        """Bytes that an image has and its base has not."""
        return self.size(self.built(name)) - self.size(self.base)

    def table(self) -> Iterator[str]:
        """Lines on what has been built."""
        yield f"{'image':28} {'size':>8} {'over the base':>14} {'built in':>9}"
        for name in sorted(self.seconds):
            size, over = self.size(self.built(name)) / 1e6, self.over_base(name) / 1e6
            yield f"{self.built(name):28} {size:5.0f} MB {over:11.0f} MB {self.seconds[name]:7.0f} s"
