"""Probes as kubelet makes them: gRPC, HTTP and TCP from outside to the pod's address, commands inside the container."""

import http.client
import socket
import subprocess
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import Any

from tests.cluster.node import Node


def passes(node: Node, probe: Mapping[str, Any], container: Mapping[str, Any], name: str, address: str) -> bool:
    """Whether a probe of the container that podman calls `name` passes now; the pod has this address."""
    limit_s = float(probe.get("timeoutSeconds", 1))
    if "exec" in probe:
        try:
            return node.ask("exec", name, *probe["exec"]["command"], limit_s=limit_s).returncode == 0
        except subprocess.TimeoutExpired:
            return False
    if "grpc" in probe:
        return _serving(f"{address}:{probe['grpc']['port']}", probe["grpc"].get("service") or "", limit_s)
    if "httpGet" in probe:
        return _answers(probe["httpGet"], address, _port(probe["httpGet"]["port"], container), limit_s)
    with suppress(OSError):
        socket.create_connection((address, _port(probe["tcpSocket"]["port"], container)), limit_s).close()
        return True
    return False


def kind(probe: Mapping[str, Any]) -> str:
    """What a probe does."""
    return next(each for each in ("exec", "grpc", "httpGet", "tcpSocket") if each in probe)


def _serving(target: str, service: str, limit_s: float) -> bool:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=limit_s)
        except grpc.RpcError:
            return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING


def _answers(asked: Mapping[str, Any], address: str, port: int, limit_s: float) -> bool:
    assert asked.get("scheme", "HTTP") == "HTTP", asked
    headers = {each["name"]: each["value"] for each in asked.get("httpHeaders") or ()}
    with closing(http.client.HTTPConnection(address, port, timeout=limit_s)) as connection:
        try:
            connection.request("GET", asked.get("path", "/"), headers={"User-Agent": "kube-probe/1.33"} | headers)
            return 200 <= connection.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False


def _port(named: int | str, container: Mapping[str, Any]) -> int:
    if isinstance(named, int):
        return named
    return next(each["containerPort"] for each in container["ports"] if each.get("name") == named)
