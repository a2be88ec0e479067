"""Labels from a model behind an address: a fake one that remembers what it was sent."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from comfy_revelio import RevelioError
from comfy_revelio.analysis.index.endpoint import INSTRUCTION, Endpoint, ask

CROPS = torch.arange(5 * 8 * 8 * 3).reshape(5, 8, 8, 3).to(torch.uint8)


class Fake:
    """A server that remembers what it was sent and answers as it is set up to."""

    def __init__(self) -> None:
        self.status, self.body, self.headers = 200, _said("A pair of glasses."), {}
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        self.wait = threading.Event()
        self.slow = False


def _said(text: Any) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


@pytest.fixture
def fake() -> Iterator[tuple[Fake, str]]:
    fake_server = Fake()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            fake_server.asked.append((self.path, dict(self.headers), json.loads(body)))
            if fake_server.slow:
                fake_server.wait.wait(10)
            self.send_response(fake_server.status)
            for name, value in fake_server.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(fake_server.body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield fake_server, f"http://127.0.0.1:{server.server_address[1]}/v1"
    fake_server.wait.set()
    server.shutdown()


def test_only_crops_and_the_instruction_are_sent(fake: tuple[Fake, str]) -> None:
    server, url = fake
    assert ask(Endpoint(url, "seer", "secret"), CROPS) == "A pair of glasses"
    ((path, headers, body),) = server.asked
    assert (path, headers["Authorization"]) == ("/v1/chat/completions", "Bearer secret")
    assert set(body) == {"model", "messages", "max_tokens", "temperature"} and body["model"] == "seer"
    ((message),) = body["messages"]
    text, image = message["content"]
    assert text == {"type": "text", "text": INSTRUCTION}
    kind, _, data = image["image_url"]["url"].partition(",")
    assert kind == "data:image/png;base64"
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert sheet.shape == (256, 512, 3)  # four and one, each enlarged to 128
    assert int(sheet[200, 300].max()) == 0


def test_without_a_key_none_is_sent(fake: tuple[Fake, str]) -> None:
    server, url = fake
    ask(Endpoint(f"{url}/", "seer"), CROPS)
    assert server.asked[0][0] == "/v1/chat/completions"
    assert "Authorization" not in server.asked[0][1]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ('\n  "Round glasses"\nBecause ...', "Round glasses"),
        ("<think>\nhm\n</think>\n\n**hat**", "hat"),
        ("x" * 200, "x" * 60),
        ("a\tb\x00c", "a b c"),
        ("  \n ", ""),
    ],
)
def test_answers_become_one_line(fake: tuple[Fake, str], text: str, label: str) -> None:
    server, url = fake
    server.body = _said(text)
    assert ask(Endpoint(url, "seer"), CROPS) == label


def _set(**values: Any) -> Callable[[Fake], None]:
    return lambda server: [setattr(server, name, value) for name, value in values.items()] and None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set(status=401), "refused with 401"),
        (_set(status=302, headers={"Location": "http://127.0.0.1:9/v1"}), "refused with 302"),
        (_set(body=b"<html>"), "chat completions"),
        (_set(body=b"[" * 100_000), "chat completions"),
        (_set(body=_said(None)), "chat completions"),
        (_set(body=b'{"choices": []}'), "chat completions"),
        (_set(body=b" " * (2**20 + 10)), "more than"),
        (_set(slow=True), "within 0.3 seconds"),
    ],
    ids=["401", "redirect", "html", "nested", "no text", "no choice", "too long", "too slow"],
)
def test_what_goes_wrong_is_one_sentence(
    fake: tuple[Fake, str], change: Callable[[Fake], None], message: str
) -> None:
    server, url = fake
    change(server)
    with pytest.raises(RevelioError, match=message) as problem:
        ask(Endpoint(url, "seer", "secret", timeout=0.3), CROPS)
    assert "\n" not in str(problem.value) and "secret" not in str(problem.value)
    assert len(server.asked) == 1


def test_nobody_there() -> None:
    with pytest.raises(RevelioError, match="did not respond"):
        ask(Endpoint("http://127.0.0.1:9/v1", "seer", timeout=2), CROPS)


@pytest.mark.parametrize("url", ["", "localhost:1234", "file:///etc/passwd", "ftp://a/b", "http://"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(RevelioError, match="must be an address"):
        Endpoint(url, "seer")


def test_the_key_is_not_shown() -> None:
    assert "secret" not in repr(Endpoint("http://a/v1", "seer", "secret"))
    with pytest.raises(RevelioError, match="name of a model"):
        Endpoint("http://a/v1", "")
