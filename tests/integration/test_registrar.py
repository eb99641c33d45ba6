"""The registrar, through kfp's own client, against a server: what is made, changed, left alone and deleted."""

import threading

import pytest
import yaml

from deerfield import __version__
from deerfield.errors import InvalidInput, Unreachable
from pipelines.compiled import package
from pipelines.kubeflow import registrar, schedules
from pipelines.kubeflow.kfp_transport import Where
from pipelines.kubeflow.registrar import Done, Registration
from tests import compiled, kfp_server
from tests.compiled import RUN

WEEKLY = {
    "name": "weekly notes",
    "pipeline": "federated-training",
    "cron": "0 0 3 * * 1",
    "parameters": {
        "run": RUN,
        "rounds": 5,
        "rate": 0.25,
        "fast": True,
        "sites": ["north", "south"],
        "limits": {"epsilon": 3},
    },
    "experiment": "notes",
    "max_concurrency": 2,
    "service_account": "trainer",
}
NIGHTLY = {"name": "nightly", "pipeline": "federated-training", "cron": "0 30 2 * * *", "parameters": {"run": RUN}}


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compiled")
    first, second = compiled.write(folder / "first"), compiled.write(folder / "second", rounds=4)
    return package.read_all([first]), package.read_all([second])


@pytest.fixture
def kfp():
    with kfp_server.serving() as server:
        yield server


@pytest.fixture
def register(kfp, packages, tmp_path):
    """Registers schedules as a file has them; answers what was said, as (change, kind, name)."""

    def run(*asked, packages=packages[0], owner="lungs", patience_s=20.0, **where):
        file = tmp_path / f"{threading.get_ident()}.yaml"
        file.write_text(yaml.safe_dump({"schedules": list(asked)}))
        said: list[Done] = []
        asked = Registration(packages=packages, schedules=schedules.load(file, packages), owner=owner)
        registrar.register(Where(address=kfp.address, **where), asked, said.append, patience_s)
        return [(done.change, done.kind, done.name) for done in said]

    return run


def only(found):
    (one,) = found
    return one


def test_everything_is_made_once_and_the_recurring_run_has_what_its_schedule_says(kfp, register, packages):
    assert register(WEEKLY) == [
        ("created", "pipeline", "federated-training"),
        ("created", "schedule", "weekly notes"),
    ]
    pipeline, version = only(kfp.pipelines.values()), only(kfp.versions.values())
    assert pipeline["name"] == "federated-training"
    assert version["name"] == packages[0]["federated-training"].version
    assert version["name"].startswith(f"{__version__}-")
    with packages[0]["federated-training"].path.open() as file:
        assert version["pipeline_spec"] == yaml.safe_load(file)
    experiment, made = only(kfp.experiments.values()), only(kfp.recurring_runs.values())
    assert experiment["display_name"] == "notes"
    assert made["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * 1"}}
    assert made["runtime_config"] == {"parameters": WEEKLY["parameters"]}
    assert made["experiment_id"] == experiment["experiment_id"]
    assert made["pipeline_version_reference"] == {
        "pipeline_id": pipeline["pipeline_id"],
        "pipeline_version_id": version["pipeline_version_id"],
    }
    assert (made["mode"], made["max_concurrency"], made["no_catchup"]) == ("ENABLE", "2", True)
    assert made["service_account"] == "trainer"


def test_the_same_again_changes_nothing(kfp, register):
    register(WEEKLY, NIGHTLY)
    before = kfp.changes()
    assert {change for change, _, _ in register(WEEKLY, NIGHTLY)} == {"unchanged"}
    assert kfp.changes() == before


@pytest.mark.parametrize(
    "change",
    [
        {"cron": "0 0 4 * * 1"},
        {"parameters": {"run": RUN, "rounds": 6}},
        {"experiment": "others"},
        {"max_concurrency": 1},
        {"catchup": True},
        {"service_account": None},
    ],
)
def test_a_changed_schedule_is_made_anew_and_two_are_never_enabled(kfp, register, change):
    register(WEEKLY)
    old = only(kfp.recurring_runs)
    assert register(WEEKLY | change)[1] == ("updated", "schedule", "weekly notes")
    made = only(kfp.recurring_runs.values())
    assert made["recurring_run_id"] != old
    assert (made["mode"], kfp.most_enabled) == ("ENABLE", 1)


def test_runs_that_are_going_on_outlive_the_recurring_run_that_started_them(kfp, register):
    register(WEEKLY)
    register()
    deleted = [each for each in kfp.requests if each.method == "DELETE"]
    assert [each.query for each in deleted] == [{"propagation_policy": "ORPHAN"}]


def test_a_schedule_is_switched_off_and_on_where_it_is(kfp, register):
    register(WEEKLY)
    old = only(kfp.recurring_runs)
    for enabled, mode in ((False, "DISABLE"), (True, "ENABLE")):
        assert register(WEEKLY | {"enabled": enabled})[1] == ("updated", "schedule", "weekly notes")
        assert register(WEEKLY | {"enabled": enabled})[1] == ("unchanged", "schedule", "weekly notes")
        assert (only(kfp.recurring_runs), only(kfp.recurring_runs.values())["mode"]) == (old, mode)


def test_a_schedule_that_is_made_switched_off_never_ran(kfp, register):
    register(WEEKLY | {"enabled": False})
    assert only(kfp.recurring_runs.values())["mode"] == "DISABLE"
    assert kfp.most_enabled == 0


def test_a_new_version_of_the_pipeline_is_uploaded_and_the_schedule_follows_it(kfp, register, packages):
    register(WEEKLY)
    assert register(WEEKLY, packages=packages[1]) == [
        ("updated", "pipeline", "federated-training"),
        ("updated", "schedule", "weekly notes"),
    ]
    names = {each["name"]: key for key, each in kfp.versions.items()}
    assert len(kfp.pipelines) == 1
    assert set(names) == {each["federated-training"].version for each in packages}
    reference = only(kfp.recurring_runs.values())["pipeline_version_reference"]
    assert reference["pipeline_version_id"] == names[packages[1]["federated-training"].version]


def test_what_left_the_file_is_deleted_and_what_others_made_stays(kfp, register):
    register(WEEKLY, NIGHTLY)
    register(NIGHTLY | {"name": "theirs"}, owner="hearts")
    by_hand = dict(only(kfp.scheduled("theirs")), recurring_run_id="by-hand", display_name="mine", description="")
    kfp.recurring_runs["by-hand"] = by_hand
    assert register(WEEKLY)[-1] == ("deleted", "schedule", "nightly")
    assert sorted(each["display_name"] for each in kfp.recurring_runs.values()) == ["mine", "theirs", "weekly notes"]


def test_a_recurring_run_of_somebody_else_is_not_touched(kfp, register):
    register(NIGHTLY, owner="hearts")
    with pytest.raises(InvalidInput, match=r"recurring run 'nightly' .* is kept by 'hearts', and is not touched"):
        register(NIGHTLY)
    only(kfp.recurring_runs.values())["description"] = "made in the browser"
    with pytest.raises(InvalidInput, match="was not made by deerfield"):
        register(NIGHTLY)
    assert len(kfp.recurring_runs) == 1


def test_more_than_a_page_of_schedules_is_seen(kfp, register):
    many = [NIGHTLY | {"name": f"number {number}"} for number in range(120)]
    register(*many)
    assert len(kfp.recurring_runs) == 120
    said = register()
    assert len(said) == 121
    assert not kfp.recurring_runs


def test_of_two_equal_ones_that_were_left_behind_the_first_stays(kfp, register):
    register(WEEKLY)
    first = only(kfp.recurring_runs.values())
    for number, day in enumerate(("2020-01-01", "2099-01-01")):
        later = {"recurring_run_id": str(number), "created_at": f"{day}T00:00:00Z", "mode": "DISABLE"}
        kfp.recurring_runs[str(number)] = first | later
    assert register(WEEKLY)[1] == ("updated", "schedule", "weekly notes")
    assert only(kfp.recurring_runs.values())["created_at"].startswith("2020")
    assert (only(kfp.recurring_runs.values())["mode"], kfp.most_enabled) == ("ENABLE", 1)


def test_who_changes_the_same_schedule_at_the_same_time_is_waited_for(kfp, register, capsys):
    kfp.meanwhile("POST", "recurringruns/.*:enable", lambda: register(WEEKLY | {"cron": "0 0 5 * * 1"}))
    assert register(WEEKLY)[1] == ("updated", "schedule", "weekly notes")
    assert (
        "schedule 'weekly notes' is changed by somebody else at the same time; asking again" in capsys.readouterr().err
    )
    assert only(kfp.recurring_runs.values())["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * 1"


def test_an_archived_experiment_takes_no_schedule(kfp, register):
    register(NIGHTLY)
    only(kfp.experiments.values())["storage_state"] = "ARCHIVED"
    with pytest.raises(InvalidInput, match="experiment 'Default' is archived and takes no runs"):
        register(NIGHTLY)


INTERRUPTIONS = [
    ("POST", "pipelines", True),
    ("POST", "pipelines/upload_version", False),
    ("POST", "pipelines/upload_version", True),
    ("POST", "recurringruns", False),
    ("POST", "recurringruns", True),
    ("DELETE", "recurringruns/.*", False),
    ("DELETE", "recurringruns/.*", True),
    ("POST", "recurringruns/.*:enable", False),
    ("POST", "recurringruns/.*:enable", True),
    ("GET", "recurringruns", True),
]


@pytest.mark.parametrize(("method", "path", "answered"), INTERRUPTIONS)
def test_an_interrupted_registration_is_put_in_order_by_the_next(  # noqa: PLR0917
    kfp, register, packages, method, path, answered
):
    if path != "pipelines":
        register(WEEKLY)
    changed = WEEKLY | {"cron": "0 0 4 * * 1"}
    kfp.interrupt(method, path, answered=answered)
    with pytest.raises(Unreachable, match="it closed the connection"):
        register(changed, packages=packages[1], patience_s=0)
    assert not kfp.faults
    register(changed, packages=packages[1])
    made = only(kfp.recurring_runs.values())
    assert (made["trigger"]["cron_schedule"]["cron"], made["mode"]) == ("0 0 4 * * 1", "ENABLE")
    assert kfp.most_enabled == 1
    assert {change for change, _, _ in register(changed, packages=packages[1])} == {"unchanged"}


def test_what_a_first_try_has_made_is_not_said_to_be_unchanged_by_the_second(kfp, register):
    kfp.interrupt("POST", "recurringruns", answered=True)
    assert register(WEEKLY)[0] == ("created", "pipeline", "federated-training")


@pytest.mark.parametrize("other", [WEEKLY, WEEKLY | {"cron": "0 0 5 * * 1"}], ids=["equal", "different"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "pipelines"),
        ("POST", "pipelines/upload_version"),
        ("POST", "experiments"),
        ("POST", "recurringruns"),
        ("GET", "recurringruns"),
        ("DELETE", "recurringruns/.*"),
        ("POST", "recurringruns/.*:enable"),
    ],
)
def test_of_two_registrars_at_once_neither_fails_and_one_schedule_is_enabled(kfp, register, method, path, other):
    """The second does all of its work while the first waits for the answer to one request."""
    if method == "DELETE":
        register(WEEKLY | {"cron": "0 0 6 * * 1"})
    kfp.meanwhile(method, path, lambda: register(other))
    register(WEEKLY)
    assert not kfp.faults
    made = only(kfp.recurring_runs.values())
    assert (made["mode"], kfp.most_enabled) == ("ENABLE", 1)
    assert made["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * 1"
    assert len(kfp.pipelines) == len(kfp.versions) == len(kfp.experiments) == 1


def test_many_registrars_at_once_leave_one_enabled_schedule(kfp, register):
    failures = []

    def one(hour):
        try:
            register(WEEKLY | {"cron": f"0 0 {hour} * * 1"})
        except Unreachable as error:  # others kept changing it: allowed, and the next registration would mend it
            failures.append(str(error))

    threads = [threading.Thread(target=one, args=(hour,)) for hour in (3, 3, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert kfp.most_enabled == 1
    register(WEEKLY)
    made = only(kfp.recurring_runs.values())
    assert (made["mode"], made["trigger"]["cron_schedule"]["cron"], kfp.most_enabled) == ("ENABLE", "0 0 3 * * 1", 1)


def test_a_multi_user_installation_gets_a_namespace_and_a_token_that_is_read_for_each_request(kfp, register, tmp_path):
    kfp.multi_user, kfp.token, kfp.namespaces = True, "first", {"lungs"}
    token = tmp_path / "token"
    token.write_text("first\n")

    def renewed():
        kfp.token = "second"
        token.write_text("second\n")

    kfp.meanwhile("GET", "recurringruns", renewed)
    with pytest.raises(InvalidInput, match="401"):  # the request that was under way had the old one
        register(WEEKLY, token=token, namespace="lungs")
    register(WEEKLY, token=token, namespace="lungs")
    register(WEEKLY | {"cron": "0 0 4 * * 1"}, token=token, namespace="lungs")
    assert {each["namespace"] for each in (*kfp.pipelines.values(), *kfp.experiments.values())} == {"lungs"}
    assert only(kfp.recurring_runs.values())["namespace"] == "lungs"
    assert {each.headers["authorization"] for each in kfp.requests} == {"Bearer first", "Bearer second"}


def test_a_file_of_parameters_is_read_beside_the_schedules_file(kfp, register, tmp_path):
    (tmp_path / "notes.yaml").write_text(RUN)
    register(NIGHTLY | {"parameters": {}, "files": {"run": "notes.yaml"}})
    assert only(kfp.recurring_runs.values())["runtime_config"] == {"parameters": {"run": RUN}}
