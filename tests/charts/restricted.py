"""The Pod Security Standard "restricted", with "baseline" below it, as rules over a pod's spec.

https://kubernetes.io/docs/concepts/security/pod-security-standards/ names the fields; the API server's own check is not
here, and a cluster with other rules of its own may refuse more. Volumes of kind `image` are taken from 1.33 on, before
they were on by default.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from tests.charts.pods import Pod, containers

VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected",
    "secret",
}  # fmt: skip
PROFILES = ("RuntimeDefault", "Localhost")
APPARMOR = ("runtime/default", "localhost/")
SELINUX_TYPES = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
SAFE_SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
}  # fmt: skip


def offences(pod: Pod) -> Iterator[str]:
    """What "restricted" refuses of a pod, a sentence each."""
    context = pod.spec.get("securityContext", {})
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.spec.get(field):
            yield f"{pod.where}: {field} is on"
    for volume in pod.spec.get("volumes", []):
        if other := volume.keys() - VOLUMES - {"name"}:
            yield f"{pod.where}: volume {volume.get('name')} is a {', '.join(sorted(other))}"
    for sysctl in context.get("sysctls", []):
        if sysctl["name"] not in SAFE_SYSCTLS:
            yield f"{pod.where}: sysctl {sysctl['name']}"
    for name, value in pod.notes.items():  # how AppArmor was asked for before it had a field
        if name.startswith("container.apparmor.security.beta.kubernetes.io/") and not value.startswith(APPARMOR):
            yield f"{pod.where}: annotation {name} is {value}"
    yield from _identity(pod.where, context)
    for where, box in containers(pod):
        yield from _container(where, box, context)


def _identity(where: str, context: Mapping[str, Any]) -> Iterator[str]:
    """What pods and containers say alike: user, SELinux, AppArmor, seccomp, Windows."""
    if context.get("runAsUser") == 0:
        yield f"{where}: runAsUser is 0"
    if context.get("runAsNonRoot") is False:
        yield f"{where}: runAsNonRoot is false"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield f"{where}: windowsOptions.hostProcess is on"
    linux = context.get("seLinuxOptions", {})
    if linux.get("type", "") not in SELINUX_TYPES or linux.get("user") or linux.get("role"):
        yield f"{where}: seLinuxOptions {dict(linux)}"
    if context.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in PROFILES:
        yield f"{where}: appArmorProfile is {context['appArmorProfile']['type']}"
    if context.get("seccompProfile", {}).get("type", "RuntimeDefault") not in PROFILES:
        yield f"{where}: seccompProfile is {context['seccompProfile']['type']}"


def _container(where: str, box: Mapping[str, Any], pod: Mapping[str, Any]) -> Iterator[str]:
    own = box.get("securityContext", {})
    yield from _identity(where, own)
    if own.get("privileged"):
        yield f"{where}: privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{where}: allowPrivilegeEscalation is not false"
    if own.get("procMount", "Default") != "Default":
        yield f"{where}: procMount is {own['procMount']}"
    if "ALL" not in own.get("capabilities", {}).get("drop", []):
        yield f"{where}: capabilities do not drop ALL"
    if added := set(own.get("capabilities", {}).get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"{where}: capabilities add {sorted(added)}"
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield f"{where}: runAsNonRoot is not true"
    if "type" not in own.get("seccompProfile", pod.get("seccompProfile", {})):
        yield f"{where}: no seccompProfile"
    for port in box.get("ports", []):
        if port.get("hostPort"):
            yield f"{where}: hostPort {port['hostPort']}"
    for hook in ("livenessProbe", "readinessProbe", "startupProbe"):
        yield from _other_host(where, hook, box.get(hook, {}))
    for hook, action in box.get("lifecycle", {}).items():
        yield from _other_host(where, hook, action)


def _other_host(where: str, hook: str, action: Mapping[str, Any]) -> Iterator[str]:
    for kind in ("httpGet", "tcpSocket"):
        if action.get(kind, {}).get("host"):
            yield f"{where}: {hook} asks another host, {action[kind]['host']}"


def read_only(pod: Pod) -> Iterator[str]:
    """Beyond the standard: a root file system that nobody writes to."""
    for where, box in containers(pod):
        if box.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
            yield f"{where}: readOnlyRootFilesystem is not true"
