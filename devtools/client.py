"""A client of a ComfyUI server: sends a graph, follows its run over the websocket, fetches its images."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .problem import Problem
from .server import get_json, open_url

Prompt = dict[str, Any]
"""A graph in API format: `{node id: {"class_type": ..., "inputs": {...}}}`."""


@dataclass(frozen=True)
class Event:
    """A message from the server about our run, such as `executing`, `progress` or `executed`."""

    type: str
    data: dict[str, Any]


@dataclass(frozen=True)
class RunError:
    """Why a run failed, or why a graph was refused before it ran."""

    node_id: str
    """Empty if the error does not come from a single node."""
    node_type: str
    type: str
    """The exception's class, the server's name for a refusal, or `interrupted` after an interrupt."""
    message: str


@dataclass(frozen=True)
class OutputImage:
    """An image (or video) that an output node made."""

    node_id: str
    filename: str
    type: str
    """The folder that contains the file: "output" or "temp"."""
    data: bytes
    """The content of the file, usually a PNG."""


@dataclass(frozen=True)
class RunResult:
    """The result of one run."""

    outputs: dict[str, dict[str, Any]]
    """What each output node sent to the browser, by node id."""
    images: list[OutputImage]
    events: list[Event] = field(repr=False)
    seconds: float
    error: RunError | None

    @property
    def ok(self) -> bool:
        return self.error is None

    def images_of(self, node_id: str) -> list[bytes]:
        """Return the files of one node's images, in order."""
        return [image.data for image in self.images if image.node_id == node_id]

    def ran(self, node_id: str) -> bool:
        """Whether a node was executed in this run instead of being taken from the cache."""
        return any(event.type == "executing" and event.data.get("node") == node_id for event in self.events)


class Client:
    """Talks to the server at `url`; safe to use from several threads, one `run` each."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str) -> Any:
        """Return the JSON answer to GET `path`, for example `/system_stats`."""
        return get_json(self.url + path)

    @cached_property
    def node_definitions(self) -> dict[str, Any]:
        """The definitions that `object_info` returns, requested only once."""
        return self.object_info()

    def object_info(self) -> dict[str, Any]:
        """Request the definitions of all nodes, by class name."""
        return dict(self.get("/object_info"))

    def to_api(self, workflow: dict[str, Any]) -> Prompt:
        """Convert a workflow from the browser's format to the graph that the browser would send."""
        from comfy_cli.workflow_to_api import convert_ui_to_api

        return dict(convert_ui_to_api(workflow, self.node_definitions))

    def run(
        self, prompt: Prompt, *, timeout: float = 600, on_event: Callable[[Event], None] | None = None
    ) -> RunResult:
        """Run a graph to its end and return what happened; a failed run is a result with an `error`.

        timeout: the server counts as hanging once it has sent no message for this many seconds.
        on_event: called with each message when it arrives, for example to interrupt the run halfway.
        Raises Problem if the server stops or hangs.
        """
        import websocket

        me = uuid.uuid4().hex
        started = time.monotonic()
        events: list[Event] = []
        address = f"ws{self.url.removeprefix('http')}/ws?clientId={me}"
        try:
            socket = websocket.create_connection(address, timeout=timeout, http_no_proxy=["*"])
            try:
                prompt_id, refusal = self._queue(prompt, me)
                if prompt_id:
                    _follow(socket, prompt_id, events, on_event)
            finally:
                socket.close()
            seconds = time.monotonic() - started
            history = self.get(f"/history/{prompt_id}") if prompt_id else {}
            outputs = history.get(prompt_id, {}).get("outputs", {})
            return RunResult(outputs, self._images(outputs), events, seconds, refusal or _error_in(events))
        except websocket.WebSocketTimeoutException:
            raise Problem(f"ComfyUI sent nothing for {timeout:.0f} seconds while running a graph.") from None
        except (websocket.WebSocketException, OSError) as reason:
            raise Problem(f"The connection to ComfyUI was lost while running a graph: {reason}.") from None

    def images_of_last_run(self) -> list[OutputImage]:
        """Fetch the images of the last graph that the server ran, whichever client sent it."""
        history = self.get("/history?max_items=1")
        return [image for run in history.values() for image in self._images(run.get("outputs", {}))]

    def interrupt(self) -> None:
        """Stop the run that the server is working on."""
        self._post("/interrupt", b"{}", "application/json")

    def upload_image(self, data: bytes, name: str) -> str:
        """Upload an image file to the server's input folder; return its name for a Load Image node."""
        mark = uuid.uuid4().hex
        body = (
            f'--{mark}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\ntrue\r\n'
            f'--{mark}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
            f"Content-Type: application/octet-stream\r\n\r\n"
        ).encode() + data
        answer = self._post(
            "/upload/image", body + f"\r\n--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}"
        )
        return str(json.loads(answer)["name"])

    def _queue(self, prompt: Prompt, client_id: str) -> tuple[str, RunError | None]:
        """Send a graph; return the run's id (empty if all of it was refused) and the first error, if any.

        If the server accepts some output nodes of a graph and refuses others, return both an id and an error.
        """
        body = json.dumps({"prompt": prompt, "client_id": client_id}).encode()
        try:
            answer = json.loads(self._post("/prompt", body, "application/json"))
        except urllib.error.HTTPError as refused:
            return "", _refusal(json.loads(refused.read()), prompt)
        return str(answer["prompt_id"]), _refusal(answer, prompt) if answer.get("node_errors") else None

    def _images(self, outputs: dict[str, dict[str, Any]]) -> list[OutputImage]:
        found = []
        for node_id, output in outputs.items():
            for image in output.get("images", []):
                query = {key: image[key] for key in ("filename", "subfolder", "type")}
                data = open_url(f"{self.url}/view?{urllib.parse.urlencode(query)}")
                found.append(OutputImage(node_id, image["filename"], image["type"], data))
        return found

    def _post(self, path: str, body: bytes, content_type: str) -> bytes:
        return open_url(urllib.request.Request(self.url + path, body, {"Content-Type": content_type}))


def _follow(
    socket: Any, prompt_id: str, events: list[Event], on_event: Callable[[Event], None] | None
) -> None:
    """Collect the messages about one run until the server says that it is over."""
    while True:
        message = socket.recv()
        if not isinstance(message, str):  # a preview image
            continue
        content = json.loads(message)
        event = Event(content["type"], content.get("data") or {})
        if event.data.get("prompt_id") != prompt_id:
            continue
        events.append(event)
        if on_event is not None:
            on_event(event)
        if event.type == "executing" and event.data.get("node") is None:
            return


def _error_in(events: list[Event]) -> RunError | None:
    for event in events:
        data = event.data
        if event.type == "execution_error":
            message = str(data.get("exception_message", "")).strip()
            return RunError(
                str(data.get("node_id", "")),
                str(data.get("node_type", "")),
                str(data.get("exception_type", "")),
                message,
            )
        if event.type == "execution_interrupted":
            return RunError(
                str(data.get("node_id", "")), str(data.get("node_type", "")), "interrupted", "interrupted"
            )
    return None


def _refusal(answer: dict[str, Any], prompt: Prompt) -> RunError:
    """Return the first error of a node or, if there is none, the error of the whole graph."""
    for node_id, found in (answer.get("node_errors") or {}).items():
        for error in found.get("errors", []):
            details = f": {error['details']}" if error.get("details") else ""
            return RunError(
                str(node_id), str(found.get("class_type", "")), error["type"], error["message"] + details
            )
    error = answer.get("error") or {}
    node_id = str((error.get("extra_info") or {}).get("node_id", ""))
    node_type = str(prompt.get(node_id, {}).get("class_type", ""))
    return RunError(node_id, node_type, str(error.get("type", "")), str(error.get("message", "")))
