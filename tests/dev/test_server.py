"""Starting and stopping, with small scripts in the place of ComfyUI's `main.py`."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.base import make_base
from devtools.problem import Problem
from devtools.server import GUARD, HOST, Server, checked_port, free_port, get_json, running_server

ANSWERS = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"arguments": "' + " ".join(sys.argv[1:]).encode() + b'"}')
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
FAILS = "print('no such option'); raise SystemExit(3)"
HANGS = "import time; print('thinking', flush=True); time.sleep(60)"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    folder = tmp_path / "host"
    folder.mkdir()
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_base(tmp_path / "base", pack=None)


def test_runs_until_the_block_ends(host: Path, base: Path) -> None:
    (host / "main.py").write_text(ANSWERS)
    with running_server(host, base, Path(sys.executable), extra_args=["--more"]) as server:
        arguments = get_json(f"{server.url}/system_stats")["arguments"]
        assert server.alive
    assert f"--base-directory {base}" in arguments
    assert arguments.endswith("--cpu --more")
    assert not server.alive


@pytest.mark.parametrize("reason", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_stops_whatever_happens(host: Path, base: Path, reason: type[BaseException]) -> None:
    (host / "main.py").write_text(ANSWERS)
    kept: list[Server] = []
    with pytest.raises(reason), running_server(host, base, Path(sys.executable)) as server:
        kept.append(server)
        raise reason
    assert not kept[0].alive


def test_ends_when_its_starter_is_gone(tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text(HANGS)
    process = subprocess.Popen(
        [sys.executable, str(GUARD), str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == b"thinking\n"
    process.stdin.close()  # as the system does when the starter dies
    assert process.wait(timeout=10) == 0
    process.stdout.close()


def test_a_server_that_fails_shows_the_end_of_its_log(host: Path, base: Path) -> None:
    (host / "main.py").write_text(FAILS)
    with (
        pytest.raises(Problem, match="stopped while starting, with exit code 3") as failure,
        running_server(host, base, Path(sys.executable)),
    ):
        pytest.fail("it never answered")
    assert "no such option" in failure.value.details


def test_a_server_that_never_answers_is_ended(host: Path, base: Path) -> None:
    (host / "main.py").write_text(HANGS)
    with (
        pytest.raises(Problem, match="did not answer within 1 seconds"),
        running_server(host, base, Path(sys.executable), ready_seconds=1),
    ):
        pytest.fail("it never answered")


def test_a_busy_port_is_named() -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Problem, match=f"Port {port} cannot be used"):
            checked_port(port)


def test_a_free_port_can_be_used() -> None:
    assert checked_port(free_port()) > 0


def test_a_port_that_is_no_port() -> None:
    with pytest.raises(Problem, match="Port 99999"):
        checked_port(99999)
