"""A container of a pod's spec as the arguments of `podman create`.

What says where a pod runs is dropped by name, and so are resources that only a scheduler hands out; whatever else is
not translated is an error, so nothing that a chart renders is left out in silence.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cluster.environment import expand
from tests.cluster.mounts import Mounted, size

Spec = Mapping[str, Any]
SCHEDULING = {
    "affinity",
    "nodeSelector",
    "priorityClassName",
    "runtimeClassName",
    "schedulerName",
    "tolerations",
    "topologySpreadConstraints",
}
ELSEWHERE = {  # read by the pod's life, or about images, which are here already
    "activeDeadlineSeconds",
    "automountServiceAccountToken",
    "containers",
    "enableServiceLinks",
    "imagePullSecrets",
    "initContainers",
    "restartPolicy",
    "securityContext",
    "serviceAccountName",
    "terminationGracePeriodSeconds",
    "volumes",
}
READ = {
    "args",
    "command",
    "env",
    "envFrom",
    "image",
    "imagePullPolicy",
    "lifecycle",
    "livenessProbe",
    "name",
    "ports",
    "readinessProbe",
    "resources",
    "securityContext",
    "startupProbe",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "volumeMounts",
    "workingDir",
}
SECURITY = {
    "allowPrivilegeEscalation",
    "capabilities",
    "fsGroup",
    "fsGroupChangePolicy",
    "privileged",
    "readOnlyRootFilesystem",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "seccompProfile",
    "supplementalGroups",
}
HOST = "http-proxy=false"  # podman would hand this machine's proxies to every container


def check(pod: Spec) -> None:
    """Sees that everything in a pod's spec is either translated or dropped by name."""
    _known("pod", pod, SCHEDULING | ELSEWHERE)
    _known("pod's securityContext", pod.get("securityContext") or {}, SECURITY)
    for container in (*(pod.get("initContainers") or ()), *pod["containers"]):
        _known(container["name"], container, READ)
        _known(f"{container['name']}'s securityContext", container.get("securityContext") or {}, SECURITY)


def arguments(
    pod: Spec, container: Spec, variables: Mapping[str, str], mounts: Mapping[str, Mounted], user: str
) -> list[str]:
    """What follows `podman create` and the container's place: options, the image, its arguments.

    `user` is the image's own. Raises AssertionError for what kubelet would refuse too.
    """
    security = (pod.get("securityContext") or {}) | (container.get("securityContext") or {})
    options = ["--pull=never", f"--{HOST}", "--no-healthcheck", *_confined(security, user)]
    options += _limits(container.get("resources") or {})
    options += [f"--env={name}={value}" for name, value in variables.items()]
    for mount in container.get("volumeMounts") or ():
        options.append(_mount(mount, mounts[mount["name"]]))
    if "workingDir" in container:
        options.append(f"--workdir={container['workingDir']}")
    given = [[expand(word, variables) for word in container.get(key) or ()] for key in ("command", "args")]
    if given[0]:
        options.append(f"--entrypoint={json.dumps(given[0])}")
    return [*options, container["image"], *given[1]]


def _confined(security: Spec, image_user: str) -> list[str]:
    """The options of a security context."""
    own, _, group = image_user.partition(":")
    user = security.get("runAsUser", int(own) if own.isdigit() else own or 0)
    assert not (security.get("runAsNonRoot") and user in {0, "root"}), "runAsNonRoot, and it would run as root"
    assert not (security.get("runAsNonRoot") and isinstance(user, str)), f"runAsNonRoot, and {user} is no number"
    assert not security.get("privileged"), "nothing privileged runs here"
    found = [f"--user={user}:{security.get('runAsGroup', group or 0)}"]
    more = [*security.get("supplementalGroups", ()), *([security["fsGroup"]] if "fsGroup" in security else ())]
    found += [f"--group-add={each}" for each in more]
    if security.get("readOnlyRootFilesystem"):
        found += ["--read-only", "--read-only-tmpfs=false"]  # podman would add a writable /tmp and /run
    if security.get("allowPrivilegeEscalation") is False:
        found.append("--security-opt=no-new-privileges")
    capabilities = security.get("capabilities") or {}
    found += [f"--cap-drop={each}" for each in capabilities.get("drop", ())]
    found += [f"--cap-add={each}" for each in capabilities.get("add", ())]
    profile = (security.get("seccompProfile") or {}).get("type", "RuntimeDefault")
    assert profile == "RuntimeDefault", f"seccomp profile {profile}"
    return found


def _limits(resources: Spec) -> list[str]:
    """Limits of memory and processors; extended resources have names with a slash, and no meaning here."""
    limits = resources.get("limits") or {}
    found = []
    if "memory" in limits:
        found.append(f"--memory={size(str(limits['memory']))}")
    if "cpu" in limits:
        text = str(limits["cpu"])
        found.append(f"--cpus={float(text[:-1]) / 1000 if text.endswith('m') else float(text):g}")
    return found


def _mount(mount: Spec, volume: Mounted) -> str:
    place = mount["mountPath"]
    if volume.folder is None:
        return f"--tmpfs={place}:rw,size={volume.memory},mode=1777"
    folder: Path = volume.folder
    if "subPath" in mount:
        folder = folder / mount["subPath"]
        folder.mkdir(exist_ok=True)
    return f"--volume={folder}:{place}:{'ro' if mount.get('readOnly') else 'rw'}"


def _known(what: str, spec: Spec, known: set[str]) -> None:
    assert spec.keys() <= known, f"{what}: {sorted(spec.keys() - known)} is translated to nothing"
