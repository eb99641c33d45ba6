"""Both charts as containers, with their default values: a consortium, three hospitals in networks of their own, runs.

What Helm renders is run as a cluster would run it (tests/cluster), and nothing else. The tests are one story, told in
their order. The images stand on a look-alike of their base; the table at the end says what is not shown here.
"""

import base64
import json
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from deerfield.identity import Peer
from tests import pki
from tests.cluster import consortium as consortiums
from tests.cluster import inside
from tests.cluster.cluster import Cluster, story, together
from tests.cluster.consortium import Consortium, Events, run_file
from tests.cluster.hospital import FEDERATION, SITES, Hospital
from tests.cluster.node import Node
from tests.cluster.pod import Pod

MODEL = "lungs"
PHASES = 4  # of two rounds of deer
EPOCHS = 10  # so that a phase takes longer than to notice that one is published
START_S, AGAIN_S = 300.0, 180.0  # torch is slow to import; a site asks every 60 s where a person must act


@pytest.fixture(scope="module")
def hospitals(node: Node) -> dict[str, Hospital]:
    """Networks without a way out, with data and a base model, and nothing else yet."""
    found = {name: Hospital(name, Cluster(node, f"deerfield-{name}", internal=True)) for name in SITES}
    for each in found.values():
        each.fill()
    return found


@pytest.fixture(scope="module")
def consortium(node: Node, hospitals: dict[str, Hospital], timed) -> Iterator[Consortium]:
    """A release with the default values, of which the hooks have run, and nothing else yet."""
    networks = [each.cluster.name for each in hospitals.values()]
    with consortiums.begun(Cluster(node, "deerfield-consortium"), {}, networks) as found:
        yield found


@pytest.fixture(scope="module")
def elsewhere(consortium: Consortium) -> Iterator[str]:
    """An address outside the hospitals, where connections are taken."""
    with socket.create_server((consortium.cluster.gateway, 0)) as server:
        yield f"{consortium.cluster.gateway}:{server.getsockname()[1]}"


def test_the_hook_makes_secrets_by_a_role_that_goes_again(consortium):
    store = consortium.cluster.store
    made = {name for kind, _, name in store.objects if kind == "Secret"}
    assert made == {f"deer-{each}" for each in ("ca", "aggregator-tls", "operator-tls", "trial-tls", "tracking-auth")}
    assert {status for who, *_, status in consortium.api.asked if who == "deer-secrets"} == {201, 404}
    assert not [name for kind, _, name in store.objects if kind == "RoleBinding" and name != "operator"]


def test_sites_wait_for_what_a_person_must_mend(consortium, hospitals, elsewhere, tmp_path, timed):
    """North has all that it needs, east a certificate that has ended, west none; and there is no aggregator."""
    authority = consortium.secret("ca")["ca.crt"].decode()
    with timed("three hospitals: key, request, signed certificate"):
        asked = {name: each.request() for name, each in hospitals.items()}
        good = {name: (key, consortium.sign(request), authority) for name, (key, request) in asked.items()}
    hospitals["north"].keep(*good["north"])
    hospitals["east"].keep(*ended("east", tmp_path))
    for each in hospitals.values():
        each.install(egressProof={"enabled": True, "targets": [elsewhere, "1.1.1.1:443"]})

    north, east, west = (hospitals[name].pod for name in ("north", "east", "west"))
    with timed("sites start; one is ready, two say what is wrong"):
        until(hospitals, lambda: north.ready and waiting(north) and east.ended and west.ended)
    assert said(east, "has expired") == (2, "error: /etc/deerfield/tls/tls.crt has expired")
    assert said(west, "cannot be read") == (2, "error: /etc/deerfield/tls/tls.crt cannot be read")

    with timed("a new certificate, a missing Secret: both sites come up by themselves"):
        for name in ("east", "west"):
            hospitals[name].keep(*good[name])
        until(hospitals, lambda: all(each.pod.ready for each in hospitals.values()))
    assert not north.ended
    assert "egress is closed" in north.logs()


def test_default_values_come_up_and_sites_find_them(consortium, hospitals, timed):
    with timed("the consortium's pods, until every probe has passed"):
        consortium.come_up()
    pods = consortium.cluster.of(consortium.release)
    assert {each.name for each in pods} == {"deer-aggregator-0", "deer-tracking-0"}
    for each in (*pods, *(each.pod for each in hospitals.values())):
        probes = [key for key in ("startupProbe", "readinessProbe", "livenessProbe") if key in each.container().spec]
        assert probes
        assert len(each.container().passed) == len(probes)
    with timed("sites that waited are connected"):
        until(hospitals, lambda: connected(consortium) == set(SITES))
    assert "connected again" in hospitals["north"].pod.logs()


def test_every_container_is_confined(node, consortium, hospitals):
    names = [name for name, state in node.states().items() if state.running and "-infra" not in name]
    own = [name for name in names if "-desk-" not in name and "-node" not in name]
    assert len(own) == 2 + len(SITES)
    for found in json.loads(node.podman("inspect", *own)):
        assert found["HostConfig"]["ReadonlyRootfs"]
        assert not found["EffectiveCaps"]
        assert "no-new-privileges" in found["HostConfig"]["SecurityOpt"]
        assert found["Config"]["User"] == "10001:10001"


def test_a_run_finishes_and_its_model_becomes_champion(consortium, hospitals, timed):
    with timed("a run of three hospitals, from its start to its end"):
        run = consortium.start(run_file(MODEL, sorted(hospitals)))
        events = consortium.events(run)
    kinds = [each["kind"] for each in events]
    assert kinds.count("phase_published") == PHASES
    assert "registered" in kinds
    assert mlflow(consortium, f"registered-models/get?name={MODEL}", password="no") == (401, None)

    with timed("evaluation and promotion, by the operator"):
        consortium.promote(MODEL)
    code, found = mlflow(consortium, f"registered-models/alias?name={MODEL}&alias=champion")
    assert (code, found["model_version"]["version"]) == (200, "1")
    tags = {each["key"]: each["value"] for each in found["model_version"]["tags"]}
    assert tags["deerfield.verdict"] == "passed"
    assert tags["deerfield.run"] == run


def test_an_aggregator_killed_in_mid_round_changes_no_bit(consortium, hospitals, timed):
    with timed("a run without noise"):
        consortium.events(consortium.start(plain(hospitals)))
    run, published = consortium.start(plain(hospitals)), []

    def kill() -> None:
        """Once one of the two phases of a round is published and the other is not."""
        if not published and consortium.published(run) % 2:
            consortium.aggregator.kill()
            published.append(consortium.published(run))

    with timed("the same, its aggregator killed in mid-round and started again"):
        killed = digests(consortium.events(run, meanwhile=kill))
    assert published in ([1], [3])
    assert len(killed) == PHASES
    assert killed == calm(consortium)
    assert [each.code for each in consortium.aggregator.ended] == [137]


def test_a_job_for_each_task_gives_the_same_bits(consortium, hospitals, timed):
    """West gives its GPU back: an agent takes the tasks, and has the cluster run a Job for each."""
    west, spec = hospitals["west"], plain(hospitals)
    west.uninstall()
    with (
        inside.serving(west.cluster) as api,
        timed("one hospital on demand: its agent is ready; a run, a Job for each task"),
    ):
        west.install(mode="ondemand", ondemand={"apiServer": {"cidrs": [f"{west.cluster.gateway}/32"]}})
        west.cluster.await_ready(west.release)
        found = digests(consortium.events(consortium.start(spec), [west.cluster]))
        west.uninstall()
    assert api.asked.count(("site-agent", "create", "jobs", 201)) == PHASES
    assert [each for each in api.asked if each.status not in {200, 201}] == []
    assert found == calm(consortium)


def test_helm_test_of_both_charts_passes(consortium, hospitals, timed):
    with timed("helm test deerfield: a run of two sites of its own, to the registered model"):
        (trial,) = consortium.cluster.test(consortium.release)
    print(trial.logs())
    with timed("helm test deerfield-site, at one hospital"):
        (check,) = hospitals["north"].cluster.test(hospitals["north"].release)
    lines = [line.split()[:2] for line in check.logs().splitlines()]
    assert lines[:4] == [[each, "ok"] for each in ("settings", "policy", "certificate", "aggregator")]


def test_an_upgrade_makes_no_secret_anew(consortium):
    before = secrets(consortium)
    consortium.cluster.run_hooks(consortium.release, "pre-upgrade")
    assert secrets(consortium) == before


def test_an_aggregator_that_is_told_to_go_ends_well_and_its_successor_serves(consortium, hospitals, timed):
    old = consortium.aggregator
    with timed("the aggregator's pod is replaced, as in an upgrade"):
        consortium.cluster.replace(old)
        consortium.cluster.await_ready(consortium.release)
    assert old.ended[-1].code == 0
    assert [each["run"] for each in consortium.operator.told("deerfield", "runs", "list")]


def test_a_site_refuses_to_start_where_egress_is_open(node, consortium, elsewhere, timed):
    """The networks of the hospitals have no way out, and the same proof has passed there."""
    north = Hospital("north", Cluster(node, "deerfield-open"))
    north.fill()
    key, request = north.request()
    north.keep(key, consortium.sign(request), consortium.secret("ca")["ca.crt"].decode())
    with timed("a site in a network with a way out: its proof of closed egress fails"):
        north.install(egressProof={"enabled": True, "targets": [elsewhere]})
        north.cluster.wait(lambda: north.pod.ended, START_S, lambda: story(north.pod))
    assert said(north.pod, "from here") == (2, f"error: --egress-proof: {elsewhere} can be reached from here")


def until(hospitals: dict[str, Hospital], holds: Callable[[], object]) -> None:
    """Waits for something while the pods of all hospitals go on."""
    clusters = [each.cluster for each in hospitals.values()]
    together(clusters, holds, START_S + AGAIN_S, lambda: "\n".join(story(each.pod) for each in hospitals.values()))


def ended(site: str, folder: Path) -> tuple[str, str, str]:
    """Key, certificate and CA of a site, whose certificate ended a day ago."""
    then = pki.NOW - timedelta(days=2)
    peer = Peer(federation=FEDERATION, role="site", name=site)
    files = pki.files(pki.authority(folder / "ca", FEDERATION, then), folder / site, peer, days=1, now=then)
    return files.key.read_text(), files.certificate.read_text(), files.authority.read_text()


def said(pod: Pod, until: str) -> tuple[int, str]:
    """The exit code of a pod's first end, and its termination message, which is one line, up to and with a word."""
    first = pod.ended[0]
    assert "\n" not in first.message.strip()
    return first.code, first.message[: first.message.index(until) + len(until)]


def waiting(pod: Pod) -> bool:
    """Whether a site has said that it reaches nobody."""
    return "no connection" in pod.logs()


def connected(consortium: Consortium) -> set[str]:
    return {each["site"] for each in consortium.operator.told("deerfield", "runs", "sites")}


def plain(hospitals: dict[str, Hospital]) -> dict[str, Any]:
    """A run without noise, which is the same whenever it runs."""
    privacy = {"unit": "none", "sample_rate": 0.25}
    return run_file("public", sorted(hospitals), population="public", privacy=privacy, epochs=EPOCHS)


def calm(consortium: Consortium) -> list[str]:
    """The digests of the first such run, which nothing has disturbed."""
    runs = [each["run"] for each in consortium.operator.told("deerfield", "runs", "list")]
    return digests(consortium.events(next(each for each in runs if each.startswith("public"))))


def digests(events: Events) -> list[str]:
    """Of everything that a run has published."""
    return [each["digest"] for each in events if each["kind"] == "phase_published"]


def secrets(consortium: Consortium) -> dict[str, dict[str, str]]:
    return {
        name: each["data"] for (kind, _, name), each in consortium.cluster.store.objects.items() if kind == "Secret"
    }


def mlflow(consortium: Consortium, question: str, password: str = "") -> tuple[int, Any]:
    """What MLflow's API answers its administrator, from outside."""
    auth = consortium.secret("tracking-auth")
    user = f"{auth['username'].decode()}:{password or auth['password'].decode()}"
    headers = {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}
    asked = Request(f"http://{consortium.tracking.address}:5000/api/2.0/mlflow/{question}", headers=headers)
    try:
        with urlopen(asked, timeout=60) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, None
