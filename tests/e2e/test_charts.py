"""Both charts as containers, with their default values: a consortium, three hospitals in networks of their own, runs.

What Helm renders is run as a cluster would run it (tests/cluster), nothing else is. The images stand on a look-alike of
their base, the cluster has one node, and the table at the end says what is not shown here.
"""

import base64
import json
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from deerfield.identity import Peer
from pipelines.pki import pki_authority
from tests import pki
from tests.cluster import consortium as consortiums
from tests.cluster import hospital as hospitals_
from tests.cluster.cluster import Cluster, story
from tests.cluster.consortium import Consortium, run_file
from tests.cluster.container import Ended
from tests.cluster.hospital import FEDERATION, SITES, Hospital
from tests.cluster.node import Node, labelled
from tests.cluster.pod import Pod
from tests.images import NAMES, Images

MODEL = "lungs"
PHASES = 4  # of two rounds of deer
START_S, AGAIN_S = 300.0, 180.0  # torch is slow to import; a site asks every 60 s where a person must act


@pytest.fixture(scope="module")
def node(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    for name in NAMES:
        images.built(name)
    with labelled(images.engine, tmp_path_factory.mktemp("cluster")) as found:
        yield found
    assert not found.states()


@pytest.fixture(scope="module")
def hospitals(node: Node) -> dict[str, Hospital]:
    """Networks without a way out, with data and a base model, and nothing else yet."""
    found = {name: Hospital(name, Cluster(node, f"deerfield-{name}", internal=True)) for name in SITES}
    for each in found.values():
        each.fill()
    return found


@pytest.fixture(scope="module")
def consortium(node: Node, hospitals: dict[str, Hospital], timed) -> Iterator[Consortium]:
    """A release with the default values, of which the hooks have run."""
    networks = {name: each.cluster for name, each in hospitals.items()}
    began = timed("Secrets by the hook before the installation, the operator takes the CA")
    with began, consortiums.begun(node, "deerfield-consortium", {}, networks) as found:
        began.close()
        yield found
