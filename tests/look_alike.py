"""A look-alike of the image python:3.11-slim, for machines that reach no registry of images.

It is not that image: the Python is Debian's own 3.11, of another patch level. What is built on it shows that a
Dockerfile builds and runs; what is shipped is built on the real one. `python -m tests.look_alike` makes it, and says
how to build on it.
"""

import ast
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

BASE = "localhost/python-look-alike:3.11"
SUITE = "bookworm"  # the Debian whose Python is 3.11
PACKAGES = "ca-certificates,netbase,tzdata,python3.11,python3.11-venv,python3-pip"
LINKS = 'for each in python python3; do ln -s /usr/bin/python3.11 "$1/usr/local/bin/$each"; done'
PATH = "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin"
LIMIT_S = 600.0
PIP = ("cert", "index-url", "find-links")  # of pip's settings: what a build cannot do without


def make(environment: Mapping[str, str] | None = None) -> str:
    """The name of the image, which is made where podman does not have it; `podman rmi` has it made anew."""
    if subprocess.run(["podman", "image", "exists", BASE], env=environment, check=False).returncode:
        argv = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", f"--customize-hook={LINKS}"]
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "root.tar"
            subprocess.run([*argv, SUITE, str(root)], check=True, timeout=LIMIT_S)
            imported = ["podman", "import", "--quiet", "--change", PATH, str(root), BASE]
            subprocess.run(imported, env=environment, check=True, timeout=LIMIT_S, stdout=subprocess.DEVNULL)
    return BASE


def flags(folder: Path) -> str:
    """Options of `podman build` that mount what pip is told on this machine, written to `folder`, its CA and wheels."""
    told = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    settings = {}
    for line in told.stdout.splitlines():
        name, value = line.split("=", 1)
        settings[name.removeprefix(":env:.").removeprefix("global.")] = ast.literal_eval(value)
    kept = {name: settings[name] for name in PIP if name in settings}
    conf = folder / "pip.conf"
    conf.write_text("\n".join(["[global]", *(f"{name} = {value}" for name, value in kept.items()), ""]))
    paths = [path for value in kept.values() for path in value.split() if Path(path).exists()]
    mounts = [f"{conf}:/etc/pip.conf:ro", *(f"{path}:{path}:ro" for path in paths)]
    return " ".join(["--network host", *(f"--volume {mount}" for mount in mounts)])


if __name__ == "__main__":
    folder = Path(tempfile.mkdtemp(prefix="look-alike-"))
    print(f"make images BASE={make()} IMAGE_FLAGS='{flags(folder)}'")
