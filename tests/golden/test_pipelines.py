"""The compiled pipelines: the same bytes as committed, of KFP's own schema, and with what a cluster must be told."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from kfp.components import load_component_from_text
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from deerfield import __version__
from deerfield.errors import InvalidInput
from pipelines.compiled import compile_options, compiling
from pipelines.compiled.compile_options import CompileOptions, Gpu, Sites, Toleration
from pipelines.local import run
from tests import compiled
from tests.integration.federation import command

GOLDEN = Path(__file__).with_name("pipelines")
TASKS = {
    "federated-training": {"partition", "rounds", "register", "evaluate", "gate", "promote", "report"},
    "simulated-consortium": {
        *("partition", "start", "site", "rounds", "register", "evaluate", "gate", "promote", "report")
    },
}
ASKING = {  # the aggregator
    "federated-training": {"partition", "rounds", "register", "evaluate", "gate", "promote", "report"},
    "simulated-consortium": {"start", "rounds", "register", "evaluate", "gate", "promote", "report"},
}


class Compiled:
    """A pipeline, read again by KFP's protobuf classes, which refuse what they do not know."""

    def __init__(self, text: str) -> None:
        self.text = text
        documents = list(yaml.safe_load_all(text))
        self.spec = json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())
        json_format.ParseDict(documents[1], pipeline_spec_pb2.PlatformSpec())
        executors = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        config = kubernetes_executor_config_pb2.KubernetesExecutorConfig
        self.pods = {
            name.removeprefix("exec-"): json_format.ParseDict(each, config()) for name, each in executors.items()
        }
        deployment = json_format.ParseDict(documents[0]["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig())
        self.containers = {name.removeprefix("exec-"): each.container for name, each in deployment.executors.items()}
        self.tasks = {}
        for dag in (self.spec.root.dag, *(each.dag for each in self.spec.components.values())):
            assert not self.tasks.keys() & dag.tasks.keys()
            self.tasks |= dict(dag.tasks)

    def defaults(self) -> dict[str, object]:
        parameters = self.spec.root.input_definitions.parameters
        return {name: json_format.MessageToDict(each).get("defaultValue") for name, each in parameters.items()}

    def dag(self, name: str):
        return self.spec.components[name].dag


@pytest.fixture(scope="module", params=compiling.NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def golden():
    return {name: Compiled((GOLDEN / f"{name}.yaml").read_text()) for name in compiling.NAMES}


@pytest.fixture(scope="module")
def consortium(golden):
    return golden["simulated-consortium"]


def test_the_compiled_pipelines_are_those_that_are_committed_byte_for_byte(tmp_path):
    for seed in ("1", "2"):
        out = tmp_path / seed
        environment = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run(command("pipelines", "compile", "--out", out), check=True, env=environment, capture_output=True)
        for name in compiling.NAMES:
            made, committed = (out / f"{name}.yaml").read_bytes(), (GOLDEN / f"{name}.yaml").read_bytes()
            assert made == committed, f"run deerfield pipelines compile --out {GOLDEN.relative_to(Path.cwd())}"


def test_kfp_reads_them_as_pipelines(golden, name):
    component = load_component_from_text(golden[name].text)
    assert component.pipeline_spec == golden[name].spec
    assert component.name == name
    assert golden[name].spec.sdk_version == "kfp-2.17.0"
    assert set(golden[name].containers) == set(golden[name].pods) == TASKS[name]
    assert golden[name].text.count("/apis/") == golden[name].text.count("pip install") == 0


def test_nothing_but_the_parts_of_hub_owned_data_is_ever_taken_from_an_earlier_run(golden, name):
    cached = {task for task, each in golden[name].tasks.items() if each.caching_options.enable_cache}
    assert cached == ({"partition"} if name == "simulated-consortium" else set())  # hospitals are asked each time
    assert TASKS[name] <= set(golden[name].tasks)


def test_a_task_is_stamped_with_the_version_that_compiled_it(golden, name):
    for task in TASKS[name] - {"site"}:
        stamp = golden[name].tasks[task].inputs.parameters["compiled_by"].runtime_value.constant.string_value
        assert stamp == __version__
    assert f"Compiled by deerfield {__version__}." in golden[name].spec.pipeline_info.description


def test_the_request_is_kfps_id_of_the_run_for_every_task_that_finds_the_run_by_it(golden, name):
    for task in TASKS[name] & {"start", "rounds", "report"}:
        request = golden[name].tasks[task].inputs.parameters["request_id"].runtime_value.constant.string_value
        assert request == "{{$.pipeline_job_uuid}}"


def test_the_report_is_written_whatever_becomes_of_the_rest(golden, name):
    root = golden[name].spec.root.dag.tasks
    assert set(root) == {"exit-handler-1", "report"}
    strategy = root["report"].trigger_policy.strategy
    assert strategy == pipeline_spec_pb2.PipelineTaskSpec.TriggerPolicy.ALL_UPSTREAM_TASKS_COMPLETED
    assert list(root["report"].dependent_tasks) == ["exit-handler-1"]
    assert root["report"].inputs.parameters["status"].task_final_status.producer_task == "exit-handler-1"


def test_only_what_the_gate_has_passed_is_promoted(golden, name):
    inside = golden[name].dag("comp-exit-handler-1").tasks
    (condition,) = [each for each in inside.values() if each.trigger_policy.condition]
    assert condition.trigger_policy.condition.endswith("['pipelinechannel--gate-Output'] == true")
    assert set(golden[name].dag(condition.component_ref.name).tasks) == {"promote"}
    order = {task: set(each.dependent_tasks) for task, each in inside.items()}
    assert "partition" in order["rounds"]
    assert order["register"] == {"rounds"}
    assert order["evaluate"] >= {"register"}
    assert order["gate"] >= {"evaluate"}


def test_the_sites_run_beside_the_rounds_once_the_run_has_begun(consortium):
    inside = consortium.dag("comp-exit-handler-1").tasks
    assert set(inside["for-loop-2"].dependent_tasks) == {"start"}
    assert set(inside["rounds"].dependent_tasks) == {"partition", "start"}
    loop = inside["for-loop-2"].parameter_iterator
    assert loop.items.input_parameter == "pipelinechannel--start-sites"
    assert not inside["for-loop-2"].HasField("iterator_policy")  # all at once: each waits for the others
    (pod,) = consortium.dag("comp-for-loop-2").tasks.values()
    item = "pipelinechannel--start-sites-loop-item"
    own = {"site": "site", "policy": "policy", "tls_secret": "secret", "state_claim": "claim"}
    for parameter, key in own.items():
        given = pod.inputs.parameters[parameter]
        assert given.component_input_parameter == item
        assert given.parameter_expression_selector == f'parseJson(string_value)["{key}"]'
    assert pod.inputs.parameters["run"].component_input_parameter == "pipelinechannel--start-run_id"


def test_a_sites_pod_has_a_gpu_its_own_secret_and_ledger_shared_memory_and_a_queue(consortium):
    container, pod = consortium.containers["site"], consortium.pods["site"]
    assert list(container.command) == ["python", "-m", "services.client"]
    flags = dict(zip(container.args[1::2], container.args[2::2], strict=True))
    assert container.args[0] == "site"
    assert flags["--run"] == "{{$.inputs.parameters['run']}}"
    assert flags["--tls-key"] == "/etc/deerfield/tls/tls.key"
    assert container.resources.accelerator.resource_type == "{{$.inputs.parameters['pipelinechannel--gpu_type']}}"
    assert container.resources.accelerator.resource_count == "{{$.inputs.parameters['pipelinechannel--gpus']}}"
    defaults = consortium.defaults()
    assert (defaults["gpu_type"], defaults["gpus"]) == ("nvidia.com/gpu", 1)
    assert (defaults["site_cpu"], defaults["site_memory"]) == ("4", "16Gi")
    (secret,) = pod.secret_as_volume
    assert (secret.mount_path, secret.optional) == ("/etc/deerfield/tls", False)
    assert secret.secret_name_parameter.component_input_parameter == "tls_secret"
    claims = {each.mount_path: each.pvc_name_parameter.component_input_parameter for each in pod.pvc_mount}
    assert claims == {"/data": "data_claim", flags["--state"]: "state_claim"}
    (shm,) = pod.empty_dir_mounts
    assert (shm.mount_path, shm.medium, shm.size_limit) == ("/dev/shm", "Memory", "2Gi")
    assert dict(pod.pod_metadata.labels) == {"kueue.x-k8s.io/queue-name": "deerfield"}
    (toleration,) = pod.tolerations
    assert (toleration.key, toleration.operator, toleration.effect) == ("nvidia.com/gpu", "Exists", "NoSchedule")


def test_each_task_has_the_secrets_that_it_needs_and_no_others(golden, name):
    reading = {"partition", "evaluate", "gate", "report"}
    for task in TASKS[name] - {"site"}:
        pod = golden[name].pods[task]
        mounted = [(each.mount_path, each.optional) for each in pod.secret_as_volume]
        assert mounted == ([("/etc/deerfield/tls", True)] if task in ASKING[name] else [])
        keys = {pair.env_var for each in pod.secret_as_env for pair in each.key_to_env}
        s3, mlflow = (
            {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"},
            {"MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"},
        )
        assert keys == (s3 | mlflow if task in reading else set())
        claimed = [each.mount_path for each in pod.pvc_mount]
        assert claimed == (["/data"] if task in {"partition", "start", "evaluate"} else [])
    assert golden[name].defaults()["tls_secret"] == "deerfield-operator-tls"


def test_every_task_has_an_end_and_an_unprivileged_user_and_those_that_ask_others_are_tried_again(golden, name):
    for task, pod in golden[name].pods.items():
        week, day = 7 * 86_400, 86_400
        assert pod.active_deadline_seconds == (week if task in ("rounds", "site") else day)
        security = pod.security_context
        assert (security.run_as_user, security.run_as_group, security.run_as_non_root) == (10001, 10001, True)
    retried = {task for task, each in golden[name].tasks.items() if each.retry_policy.max_retry_count}
    assert retried == ASKING[name] | ({"site"} & TASKS[name])
    for task in ASKING[name]:
        policy = golden[name].tasks[task].retry_policy
        assert (policy.max_retry_count, policy.backoff_duration.seconds, policy.backoff_factor) == (3, 10, 2.0)
        assert policy.backoff_max_duration.seconds == 600


def test_run_local_has_the_pipeline_of_a_cluster_but_for_its_retries(golden):
    here = Compiled(compiled.text(run.PIPELINE, run.OPTIONS))
    there = Compiled(golden[run.PIPELINE].text)
    assert {each.retry_policy.max_retry_count for each in here.tasks.values()} == {0}
    for spec in (here.spec, there.spec):
        for dag in (spec.root.dag, *(each.dag for each in spec.components.values())):
            for each in dag.tasks.values():
                each.ClearField("retry_policy")
    assert here.spec == there.spec
    assert here.pods == there.pods


def test_images_are_parameters(golden, name):
    own = "{{$.inputs.parameters['pipelinechannel--image']}}"
    assert {each.image for each in golden[name].containers.values()} == {own}
    assert golden[name].defaults()["image"] == f"deerfield-pipelines:{__version__}"
    assert golden[name].defaults().get("site_image") in (None, f"deerfield-client:{__version__}")


def test_what_the_sites_may_spend_on_scores_is_checked_before_anything_is_trained(golden):
    given = golden["federated-training"].tasks["partition"].inputs.parameters
    assert given["evaluate_at_sites"].component_input_parameter == "pipelinechannel--evaluate_at_sites"


def test_options_change_what_they_name_and_nothing_else(consortium):
    taint = Toleration(key="hospital.example/gpu", operator="Equal", value="a100", effect="NoExecute")
    sites = Sites(
        gpu=Gpu(type="amd.com/gpu", count=2),
        tolerations=(taint,),
        node_selector={"accelerator": "mi300"},
        queue=None,
        shared_memory="8Gi",
    )
    pulled = {"pull_policy": "Always", "pull_secrets": ("hub", "mirror")}
    options = CompileOptions(sites=sites, retries=1, user=2000, **pulled)
    made = Compiled(compiled.text("simulated-consortium", options))
    assert (made.defaults()["gpu_type"], made.defaults()["gpus"]) == ("amd.com/gpu", 2)
    pod = made.pods["site"]
    (toleration,) = pod.tolerations
    assert (toleration.operator, toleration.value, toleration.effect) == ("Equal", "a100", "NoExecute")
    assert dict(pod.node_selector.labels) == {"accelerator": "mi300"}
    assert not pod.pod_metadata.labels
    assert pod.empty_dir_mounts[0].size_limit == "8Gi"
    assert made.tasks["rounds"].retry_policy.max_retry_count == 1
    assert {each.security_context.run_as_user for each in made.pods.values()} == {2000}
    for each in made.pods.values():
        secrets = [name.secret_name_parameter.runtime_value.constant.string_value for name in each.image_pull_secret]
        assert (each.image_pull_policy, secrets) == ("Always", ["hub", "mirror"])
    assert made.containers["rounds"] == consortium.containers["rounds"]


def test_without_gpus_and_without_a_claim_none_is_asked_for():
    options = CompileOptions(sites=Sites(gpu=Gpu(count=0)), data_claim=None)
    container = Compiled(compiled.text("simulated-consortium", options)).containers["site"]
    assert not container.resources.HasField("accelerator")
    plain = Compiled(compiled.text("federated-training", options))
    start = Compiled(compiled.text("simulated-consortium", options)).tasks["start"].inputs.parameters
    assert start["gpus_compiled"].runtime_value.constant.number_value == 0  # the task refuses a parameter above it
    assert start["gpus"].component_input_parameter
    assert not any(each.pvc_mount for each in plain.pods.values())


def test_manifests_are_a_pipeline_and_its_version(golden, name):
    text = compiled.text(name, namespace="kubeflow", manifests=True)
    pipeline, version = yaml.safe_load_all(text)
    assert (pipeline["kind"], version["kind"]) == ("Pipeline", "PipelineVersion")
    assert pipeline["apiVersion"] == version["apiVersion"] == "pipelines.kubeflow.org/v2beta1"
    assert pipeline["metadata"] == {"name": name, "namespace": "kubeflow"}
    assert version["metadata"] == {"name": f"{name}-{__version__}", "namespace": "kubeflow"}
    assert version["spec"]["pipelineName"] == name
    spec = json_format.ParseDict(version["spec"]["pipelineSpec"], pipeline_spec_pb2.PipelineSpec())
    assert spec == golden[name].spec
    assert "platforms" in version["spec"]["platformSpec"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("imagee: x", "unknown key 'imagee'; did you mean 'image'"),
        ("sites: {gpu: {count: -1}}", "sites.gpu.count is -1"),
        ("sites: {queue: Not A Queue}", "sites.queue is 'Not A Queue'"),
        ("timeout_s: 5", "timeout_s is 5"),
        ("resources: {memory: lots}", "resources.memory is 'lots'"),
        ("- image", "a file of compile options is a mapping of keys, such as image:"),
    ],
)
def test_options_that_cannot_be_are_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "options.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=re.escape(sentence)) as refused:
        compile_options.load(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_page_on_pipelines_names_every_task_and_parameter_and_its_example_is_one(golden, name, tmp_path):
    page = (GOLDEN.parents[2] / "docs" / "pipelines.md").read_text()
    for word in (TASKS[name] - {"site"}) | set(golden[name].defaults()):
        assert f"`{word}`" in page, word
    path = tmp_path / "options.yaml"
    path.write_text(re.search("```yaml\n(.*?)```", page, re.DOTALL)[1])
    assert compile_options.load(path).sites.queue == "research"


def test_a_pipeline_that_is_not_there_is_named():
    with pytest.raises(InvalidInput, match="there is no pipeline 'training'; there are federated-training and"):
        compiling.compiled("training", CompileOptions())
