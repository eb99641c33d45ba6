"""Imports torch, transformers and peft once, and forks the processes that need them: 10 s once instead of for each.

`python -m services.client.preload` reads one JSON line for each process to start, {"argv": [...], "log": "file"}, and
answers {"started": pid}; when one ends it says {"ended": pid, "code": n}. It ends its children when its standard
input closes, so that nothing is left behind however the launcher dies.

Each child also ends by itself when the preloader is gone, by a pipe that only the preloader holds open.

It is a process that only imports: no tensor operation, no gRPC object, no event loop, no CUDA call, because none of
these survive a fork. On macOS and with CUDA, children are spawned instead.
"""

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any, TypeAlias

GRACE_S = 5.0
CHILD = "child"  # the first argument of a spawned child
ORPHANED = 3
Children: TypeAlias = dict[int, subprocess.Popen[bytes] | None]
MODULES = ("torch", "transformers", "peft", "numpy", "scipy.special", "dp_accounting", "datasets", "PIL.Image")


def main() -> None:
    """Serves fork requests until standard input closes."""
    forks = sys.platform == "linux" and not _has_cuda_device()
    if forks:
        _import()
    _say({"ready": True})
    children: Children = {}
    try:
        _serve(children, forks=forks)
    finally:
        _end(children)


def _serve(children: Children, *, forks: bool) -> None:
    lifeline, buffer = os.pipe(), b""
    while True:
        readable, _, _ = select.select([0], [], [], 0.1)
        _reap(children)
        if not readable:
            continue
        data = os.read(0, 65536)
        if not data:
            return
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            pid, process = (_fork if forks else _spawn)(request, lifeline)
            children[pid] = process
            _say({"started": pid})


def _import() -> None:
    """Loads what every child needs, on one thread, and asserts that nothing is running."""
    import importlib

    for name in MODULES:
        importlib.import_module(name)
    importlib.import_module("services.client.training.models")
    importlib.import_module("services.client.training.trainer")


def _assert_forkable() -> None:
    threads = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    torch = sys.modules["torch"]
    if threads or torch.cuda.is_initialized():
        raise RuntimeError(f"the preloader must only import before it forks; threads: {threads}")


def _fork(request: dict[str, Any], lifeline: tuple[int, int]) -> tuple[int, None]:
    _assert_forkable()
    pid = os.fork()
    if pid:
        return pid, None
    code = 1
    try:
        os.close(lifeline[1])
        _redirect(request["log"])
        code = _work(lifeline[0], request["argv"])
    except BaseException:  # a child must never return into the preloader's loop, whatever happened to it
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _spawn(request: dict[str, Any], lifeline: tuple[int, int]) -> tuple[int, subprocess.Popen[bytes]]:
    argv = [sys.executable, "-m", "services.client.preload", CHILD, str(lifeline[0]), *request["argv"]]
    with open(request["log"], "ab") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=lifeline[:1])
    return process.pid, process


def _work(lifeline: int, argv: Sequence[str]) -> int:
    """Runs one command of `services.client`, and ends with the preloader: nothing is ever written to `lifeline`."""

    def watch() -> None:
        os.read(lifeline, 1)
        os._exit(ORPHANED)

    from services.client.__main__ import main as client

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
    return client(argv)


def _redirect(path: str) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the launcher decides


def _reap(children: Children) -> None:
    for pid, process in list(children.items()):
        code = _code(pid, process)
        if code is not None:
            del children[pid]
            _say({"ended": pid, "code": code})


def _code(pid: int, process: subprocess.Popen[bytes] | None) -> int | None:
    if process is not None:
        return process.poll()
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def _end(children: Children) -> None:
    """Ends every child: politely, then for good."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for pid in children:
            os.kill(pid, sign)
        for _ in range(int(GRACE_S / 0.05)):
            for pid, process in list(children.items()):
                if _code(pid, process) is not None:
                    del children[pid]
            if not children:
                return
            select.select([], [], [], 0.05)


def _has_cuda_device() -> bool:
    """Looks for a device file, because asking torch would initialise CUDA."""
    return os.path.exists("/dev/nvidiactl")


def _say(message: dict[str, Any]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.argv[1:2] == [CHILD]:
        sys.exit(_work(int(sys.argv[2]), sys.argv[3:]))
    main()
