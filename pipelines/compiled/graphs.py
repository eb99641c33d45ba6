"""The two pipelines: `federated-training` over sites that are there, `simulated-consortium` with pods for them.

Each is made for the options that it is compiled with. What KFP takes a parameter for is one, with its default from
the options; the rest stands in the compiled pipeline.
"""

from typing import Any, NamedTuple

from kfp import dsl, kubernetes

from deerfield import __version__
from pipelines.compiled import components
from pipelines.compiled.compile_options import CompileOptions, Resources, Sites

DATA = "/data"  # where a task's pod has the data claim
STATE = "/state"  # where a site's pod has its own
TLS = "/etc/deerfield/tls"
S3_KEYS = {"accesskey": "AWS_ACCESS_KEY_ID", "secretkey": "AWS_SECRET_ACCESS_KEY"}
TRACKING_KEYS = {"username": "MLFLOW_TRACKING_USERNAME", "password": "MLFLOW_TRACKING_PASSWORD"}
QUEUE = "kueue.x-k8s.io/queue-name"
TOLD = f"Compiled by deerfield {__version__}."


class Place(NamedTuple):
    """Parameters of a pipeline that are for its tasks alike."""

    aggregator: Any
    tracking: Any
    image: Any
    tls_secret: Any
    s3_secret: Any
    tracking_secret: Any
    data_claim: Any  # None where the pipeline mounts none


def federated_training(options: CompileOptions) -> Any:
    """The pipeline over sites that take part by themselves, compiled with `options`."""

    def pipeline(
        run: str,
        base: str,
        rules: str,
        aggregator: str,
        tracking: str,
        test_set: str = "",
        evaluate_at_sites: float = 0.0,
        destination: str = DATA,
        join_timeout_s: int = 3600,
        image: str = options.image,
        tls_secret: str = options.tls_secret,
        s3_secret: str = options.s3_secret,
        tracking_secret: str = options.tracking_secret,
        data_claim: str = options.data_claim or "",
    ) -> None:
        claim = data_claim if options.data_claim else None
        graph = Graph(options, Place(aggregator, tracking, image, tls_secret, s3_secret, tracking_secret, claim))
        with dsl.ExitHandler(graph.report(run), name="training"):
            parted = graph.validate(run, destination, rules, evaluate_at_sites)
            done = graph.rounds(run, join_timeout_s, parted)
            graph.judge(done, parted, base, test_set, evaluate_at_sites, rules)

    described = f"Trains over the sites of a run, and promotes what is better. {TOLD}"
    return dsl.pipeline(pipeline, name="federated-training", description=described)


def simulated_consortium(options: CompileOptions) -> Any:
    """The pipeline that starts a pod for each site beside the rounds, compiled with `options`."""
    sites, pod = options.sites, site_pod(options)

    def pipeline(
        run: str,
        base: str,
        rules: str,
        aggregator: str,
        tracking: str,
        test_set: str = "",
        join_timeout_s: int = 3600,
        image: str = options.image,
        tls_secret: str = options.tls_secret,
        s3_secret: str = options.s3_secret,
        tracking_secret: str = options.tracking_secret,
        data_claim: str = options.data_claim or "deerfield-data",
        site_image: str = sites.image,
        site_names: str = sites.names,
        site_cpu: str = sites.resources.cpu,
        site_memory: str = sites.resources.memory,
        gpu_type: str = sites.gpu.type,
        gpus: int = sites.gpu.count,
    ) -> None:
        graph = Graph(options, Place(aggregator, tracking, image, tls_secret, s3_secret, tracking_secret, data_claim))
        with dsl.ExitHandler(graph.report(run), name="training"):
            parted = graph.partition(run, DATA, rules)
            begun = graph.start(run, base, site_names, gpus, parted)  # the sites' pods are told its name
            with dsl.ParallelFor(begun.outputs["sites"], name="sites") as each:
                own = {"site": each.site, "policy": each.policy, "tls_secret": each.secret, "state_claim": each.claim}
                where = {"run": begun.outputs["run_id"], "aggregator": aggregator, "data_claim": data_claim}
                asked = {"cpu": site_cpu, "memory": site_memory, "gpu_type": gpu_type, "gpus": gpus}
                pod(**own, **where, image=site_image, **asked).set_caching_options(False)
            done = graph.rounds(run, join_timeout_s, parted).after(begun)  # beside the pods, and waits for none
            graph.judge(done, parted, base, test_set, 0.0, rules)  # the pods of the sites are gone by then

    described = f"Trains over sites that are pods of this cluster, and promotes what is better. {TOLD}"
    return dsl.pipeline(pipeline, name="simulated-consortium", description=described)


PIPELINES = {"federated-training": federated_training, "simulated-consortium": simulated_consortium}


class Graph:
    """Adds tasks to the pipeline that is being made, each with its image, resources, secrets, limits and retries."""

    def __init__(self, options: CompileOptions, place: Place) -> None:
        self._options = options
        self._place = place

    def partition(self, run: Any, destination: Any, rules: Any) -> Any:
        """The only task whose result may be taken from an earlier run: the same file gives the same parts."""
        task = self._task(components.partition, run=run, destination=destination, rules=rules)
        return self._sees_data(self._reads_objects(task)).set_caching_options(True)

    def validate(self, run: Any, destination: Any, rules: Any, at_sites: Any) -> Any:
        """The same task where the sites may be hospitals: what they say of themselves is asked for each time."""
        given = {"run": run, "destination": destination, "rules": rules, "evaluate_at_sites": at_sites}
        task = self._asking(components.partition, **given)
        return self._sees_data(self._reads_objects(task))

    def start(self, run: Any, base: Any, names: Any, gpus: Any, parted: Any) -> Any:
        """Starts the run before any site's pod."""
        asked = {"gpus": gpus, "gpus_compiled": self._options.sites.gpu.count}
        given = {"run": run, "names": names, "base": base, "manifest": parted.outputs["manifest"], **asked}
        return self._sees_data(self._asking(components.start, **given, **self._found_by))

    def rounds(self, run: Any, join_timeout_s: Any, parted: Any) -> Any:
        """Starts the run, or re-attaches to it, and follows it."""
        given = {"run": run, "join_timeout_s": join_timeout_s, "manifest": parted.outputs["manifest"]}
        task = self._asking(components.rounds, **given, **self._found_by)
        return kubernetes.set_timeout(task, self._options.rounds_timeout_s)

    def judge(self, done: Any, parted: Any, base: Any, test_set: Any, at_sites: Any, rules: Any) -> None:
        """From the registered version to its promotion, if it may be promoted."""
        tracking = {"tracking": self._place.tracking}
        named = self._asking(components.register, run_id=done.output).outputs
        version = {"model": named["model"], "version": named["version"]}
        found = {"manifest": parted.outputs["manifest"], **version, **tracking}
        on = {"run_id": done.output, "base": base, "test_set": test_set, "evaluate_at_sites": at_sites}
        scored = self._asking(components.evaluate, **found, **on)
        _give(self._sees_data(self._reads_objects(scored)), self._options.evaluation)
        evaluation = scored.outputs["evaluation"]
        judged = self._reads_objects(self._asking(components.gate, **found, evaluation=evaluation, rules=rules))
        with dsl.If(judged.outputs["Output"] == True, name="passed"):  # noqa: E712 (KFP's form of a condition)
            self._asking(components.promote, verdict=judged.outputs["verdict"])

    def report(self, run: Any) -> Any:
        """The last task, whatever has become of the others."""
        given = {"run": run, "tracking": self._place.tracking}
        return self._reads_objects(self._asking(components.report, **given, **self._found_by))

    @property
    def _found_by(self) -> dict[str, Any]:
        """KFP's id of the pipeline's run: the same for each try of a task, another each time a schedule fires."""
        return {"request_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER}

    def _asking(self, function: Any, **given: Any) -> Any:
        """A task that asks the aggregator, by its operator's certificate; each may be done again from its beginning."""
        task = self._task(function, aggregator=self._place.aggregator, **given)
        kubernetes.use_secret_as_volume(task, self._place.tls_secret, TLS, optional=True)
        return _retried(task, self._options, self._options.retries)

    def _task(self, function: Any, **given: Any) -> Any:
        made = dsl.component(function, base_image=self._options.image, install_kfp_package=False)
        task = made(compiled_by=__version__, **given).set_container_image(self._place.image)
        return _limited(_give(task, self._options.resources), self._options, self._options.timeout_s)

    def _reads_objects(self, task: Any) -> Any:
        """Gives a task what object storage and the tracking server may ask for; neither secret need be there."""
        kubernetes.use_secret_as_env(task, self._place.s3_secret, S3_KEYS, optional=True)
        return kubernetes.use_secret_as_env(task, self._place.tracking_secret, TRACKING_KEYS, optional=True)

    def _sees_data(self, task: Any) -> Any:
        if self._place.data_claim is None:
            return task
        return kubernetes.mount_pvc(task, self._place.data_claim, DATA)


def site_pod(options: CompileOptions) -> Any:
    """One site's pod, until its run ends: its certificate and its ledger are its own.

    A pipeline of its own, because KFP cannot name a secret or a claim by a part of a loop's item.
    """
    sites = options.sites

    def pipeline(
        site: str,
        policy: str,
        run: str,
        aggregator: str,
        tls_secret: str,
        state_claim: str,
        data_claim: str,
        image: str,
        cpu: str,
        memory: str,
        gpu_type: str,
        gpus: int,
    ) -> None:
        task = _site(sites.image)(name=site, policy=policy, aggregator=aggregator, run=run)
        _retried(task.set_container_image(image), options, sites.retries)
        task.set_cpu_request(cpu).set_cpu_limit(cpu).set_memory_request(memory).set_memory_limit(memory)
        if sites.gpu.count:
            task.set_accelerator_type(gpu_type).set_accelerator_limit(gpus)
        kubernetes.use_secret_as_volume(task, tls_secret, TLS)
        kubernetes.mount_pvc(task, data_claim, DATA)
        kubernetes.mount_pvc(task, state_claim, STATE)
        _schedule(task, sites)
        _limited(task, options, sites.timeout_s)

    return dsl.pipeline(pipeline, name="site-pod")


def _site(image: str) -> Any:
    """A site's process, from the image that holds torch: no code of a pipeline runs in it."""

    def site(name: str, policy: str, aggregator: str, run: str) -> Any:
        """Answers a site's tasks until its run has ended."""
        where = ["--site", name, "--run", run, "--aggregator", aggregator, "--policy", policy, "--state", STATE]
        files = ["--tls-certificate", f"{TLS}/tls.crt", "--tls-key", f"{TLS}/tls.key", "--tls-ca", f"{TLS}/ca.crt"]
        return dsl.ContainerSpec(
            image=image, command=["python", "-m", "services.client"], args=["site", *where, *files]
        )

    site.__annotations__["return"] = dsl.ContainerSpec
    return dsl.container_component(site)


def _schedule(task: Any, sites: Sites) -> None:
    """Where a site's pod may run, and which queue it waits in."""
    kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=sites.shared_memory)
    for each in sites.tolerations:
        kubernetes.add_toleration(task, each.key, each.operator, each.value, each.effect)
    for name, value in sorted(sites.node_selector.items()):
        kubernetes.add_node_selector(task, name, value)
    if sites.queue is not None:
        kubernetes.add_pod_label(task, QUEUE, sites.queue)


def _retried(task: Any, options: CompileOptions, times: int) -> Any:
    return task.set_retry(times, f"{options.retry_after_s}s", 2.0, "600s")


def _limited(task: Any, options: CompileOptions, timeout_s: int) -> Any:
    """How every pod is pulled, when it ends, and as whom it runs."""
    user = options.user
    if options.pull_policy is not None:
        kubernetes.set_image_pull_policy(task, options.pull_policy)
    if options.pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(options.pull_secrets))
    kubernetes.set_timeout(task, timeout_s)
    kubernetes.set_security_context(task, run_as_user=user, run_as_group=user, run_as_non_root=True)
    return task.set_caching_options(False)  # a recurring run would be given the last one's model


def _give(task: Any, resources: Resources) -> Any:
    task.set_cpu_request(resources.cpu).set_cpu_limit(resources.cpu)
    return task.set_memory_request(resources.memory).set_memory_limit(resources.memory)
