"""The sites that a trial brings along: processes on its own machine, by certificates of a folder, with new ledgers.

Each trial has a population of its own, and the aggregator is told the sites' new keys: it remembers what a site has
signed and spent, and would refuse one that has forgotten it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from deerfield import keyfile
from deerfield.attestation import public_key
from deerfield.certificates import Files, load, utc_now
from deerfield.errors import InvalidInput, RunFailed
from deerfield.runfile import mapping
from deerfield.wire.client import RunsClient
from pipelines.embedded.run_pki import flags
from pipelines.processes.children import Preloader, failure, preloader

BEGIN = "trial"  # what their names begin with: a hospital's key is never replaced
AUTHORITY = "ca.crt"
POPULATION = "trial"  # in the policy that images carry
REASON = "a trial of the installation: its sites begin anew each time"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnSite:
    """A site's name, its certificate's files, and its folder."""

    name: str
    files: Files
    folder: Path

    @property
    def log(self) -> Path:
        """What it says."""
        return self.folder / "site.log"

    @property
    def policy(self) -> Path:
        """Its hospital's rules, which it has no hospital for."""
        return self.folder / "policy.yaml"


def certified(folder: Path, places: Path) -> Sequence[OwnSite]:
    """The sites whose certificates are in `folder` (NAME.crt, NAME.key, and ca.crt); their own folders go to `places`.

    Raises:
        InvalidInput: there is none, a file cannot be used, or a certificate is no trial site's.
    """
    found = []
    for certificate in sorted(path for path in folder.glob("*.crt") if path.name != AUTHORITY):
        files = Files(
            certificate=certificate, key=certificate.with_suffix(".key"), authority=certificate.with_name(AUTHORITY)
        )
        peer = load(files, utc_now()).peer
        if peer.role != "site" or not peer.name.startswith(BEGIN):
            raise InvalidInput(
                f"{certificate} is of {peer.uri}; a trial brings only sites along whose names begin with {BEGIN}, such "
                "as trial-a, because it replaces their keys at the aggregator"
            )
        found.append(OwnSite(name=peer.name, files=files, folder=places / peer.name))
    if not found:
        raise InvalidInput(f"{folder} holds no certificate of a site (NAME.crt, NAME.key, {AUTHORITY})")
    return found


def prepare(sites: Sequence[OwnSite], share: Path, population: str, runs: RunsClient) -> None:
    """Writes each site's policy, makes its key, and tells the aggregator of it.

    Raises:
        InvalidInput: `share` has no policy of a trial.
    """
    rules = policy(share, population)
    for site in sites:
        site.folder.mkdir(parents=True)
        site.policy.write_text(yaml.safe_dump(rules, sort_keys=False), "utf-8")
        key = keyfile.load(site.folder / "state" / keyfile.SITE)
        runs.repin(site.name, public_key(key), REASON)


def policy(share: Path, population: str) -> dict[str, Any]:
    """The policy of a trial's site in `share`, for a population of another name, with the files beside it."""
    path = share / "policy.yaml"
    rules = mapping(path, "a policy", "populations")
    try:
        found = rules["populations"][POPULATION]
        source = {**found["source"], "path": str(share / Path(found["source"]["path"]).name)}
        models = {digest: str(share / Path(place).name) for digest, place in rules["models"].items()}
    except (KeyError, TypeError, AttributeError):
        raise InvalidInput(f"{path} maps no population {POPULATION} with its source and models") from None
    return {**rules, "populations": {population: {**found, "source": source}}, "models": models}


@dataclass
class Running:
    """The processes of the sites that a trial brings along; none where it brings none."""

    processes: Preloader
    _sites: dict[int, OwnSite] = field(default_factory=dict)  # by pid, of those that are still running

    def start(self, sites: Sequence[OwnSite], run: str, aggregator: str) -> None:
        """Starts a process for each."""
        for site in sites:
            where = ["--aggregator", aggregator, "--run", run, *flags(site.files)]
            state = ["--policy", str(site.policy), "--state", str(site.folder / "state")]
            pid = self.processes.start(["site", "--site", site.name, *state, *where], site.log)
            self._sites[pid] = site

    def check(self, wait_s: float = 0.0) -> None:
        """Raises RunFailed for one that has ended with an error, or does so within `wait_s`."""
        for pid, code in self.processes.ended(wait_s).items():
            if code and (site := self._sites.pop(pid, None)) is not None:
                raise RunFailed(f"site {site.name} ended with code {code}: {failure(code, site.log)}")


@contextmanager
def running(folder: Path) -> Iterator[Running]:
    """Processes that end when the block is left; they get ready in the background."""
    (folder / "logs").mkdir()
    with preloader(folder) as processes:
        yield Running(processes)
