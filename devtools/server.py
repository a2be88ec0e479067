"""Start a real ComfyUI server, and always stop it at the end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .problem import Problem
from .process import tail

HOST = "127.0.0.1"
GUARD = Path(__file__).with_name("guard.py")

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy cannot reach this machine


@dataclass(frozen=True)
class Server:
    """A running server: its `url`, such as `http://127.0.0.1:8188`, and the `log` of everything it prints."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def tail(self, lines: int = 25) -> str:
        return tail(self.log, lines)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None


@contextmanager
def running_server(
    comfyui: Path,
    base: Path,
    python: Path,
    port: int | None = None,
    extra_args: Sequence[str] = (),
    *,
    cpu: bool = True,
    ready_seconds: float = 300,
) -> Iterator[Server]:
    """Start ComfyUI on `base` (see `make_base`), wait until it answers, and stop it at the end.

    port: None chooses a free port.
    Raises Problem if the port is in use, or if the server ends or does not respond within `ready_seconds`.
    Every Problem raised inside the `with` block gets the end of the server's log as its details.
    """
    port = free_port() if port is None else checked_port(port)
    log = base / "server.log"
    command = [str(python), str(GUARD), str(comfyui / "main.py"), "--listen", HOST, "--port", str(port)]
    command += ["--base-directory", str(base), "--disable-api-nodes", "--disable-auto-launch"]
    command += ["--database-url", f"sqlite:///{(base / 'user' / 'comfyui.db').as_posix()}"]
    command += ["--cpu"] * cpu + list(extra_args)
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=comfyui,
            env=_variables(),
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in a terminal stops the caller, and the caller stops the server
        )
    server = Server(f"http://{HOST}:{port}", log, process)
    try:
        _wait_until_ready(server, ready_seconds)
        yield server
    except Problem as problem:
        problem.details = problem.details or f"The end of ComfyUI's log {log}:\n{server.tail()}"
        raise
    finally:
        _stop(process)


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def checked_port(port: int) -> int:
    """Return `port`, or raise Problem if it is in use."""
    with socket.socket() as probe:
        if os.name != "nt":  # allow a just released port; on Windows, this would allow a busy port too
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError):
            raise Problem(
                f"Port {port} cannot be used; it may be in use already: choose another with --port."
            ) from None
    return port


def cuda_works(python: Path) -> bool:
    """Whether PyTorch finds a CUDA device; tested only if there is an NVIDIA driver."""
    if shutil.which("nvidia-smi") is None:
        return False
    question = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([str(python), "-c", question], capture_output=True).returncode == 0


def get_json(url: str, timeout: float = 30) -> Any:
    with _direct.open(url, timeout=timeout) as answer:
        return json.load(answer)


def open_url(request: str | urllib.request.Request, timeout: float = 60) -> bytes:
    """Return the body of the answer; if the server refuses, the raised HTTPError contains the body."""
    with _direct.open(request, timeout=timeout) as answer:
        return bytes(answer.read())


def _variables() -> dict[str, str]:
    """Return the environment without PYTHONPATH: if it named the pack, `nodes` would not be ComfyUI's."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return kept | {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}


def _wait_until_ready(server: Server, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not server.alive:
            raise Problem(f"ComfyUI stopped while starting, with exit code {server.process.returncode}.")
        with suppress(OSError, ValueError):
            get_json(f"{server.url}/system_stats", timeout=5)
            return
        time.sleep(0.2)
    raise Problem(f"ComfyUI did not answer within {seconds:.0f} seconds.")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Close the guard's pipe, which ends the server; kill the whole process tree if it does not end."""
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        if sys.platform == "win32":
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True)
        else:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
