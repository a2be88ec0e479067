"""The real server with the pack in it, and the client that the other tests rely on."""

from __future__ import annotations

import io
import re
import time

from PIL import Image

from devtools.base import PACK_FOLDER
from devtools.client import Client, Event, Prompt
from devtools.server import Server


def _picture(color: int, width: int = 24) -> Prompt:
    return {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": width, "height": 16, "batch_size": 2, "color": color},
        },
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }


def test_the_pack_is_loaded_without_complaint(server: Server, client: Client) -> None:
    log = server.log.read_text(encoding="utf-8")
    loaded = re.search(rf"([\d.]+) seconds( \(IMPORT FAILED\))?: .*{PACK_FOLDER}", log)
    assert loaded is not None, "ComfyUI did not try to load the pack"
    assert loaded[2] is None
    assert "could not load its nodes" not in log
    assert any(name.startswith("Revelio") for name in client.object_info())


def test_pictures_come_back(client: Client) -> None:
    result = client.run(_picture(0x3366CC))
    assert result.error is None
    assert result.ran("1") and result.seconds > 0
    pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data in result.images_of("2")]
    assert [picture.size for picture in pictures] == [(24, 16)] * 2
    assert pictures[0].getpixel((5, 5)) == (0x33, 0x66, 0xCC)


def test_a_cached_run_gives_its_pictures_again(client: Client) -> None:
    first = client.run(_picture(0x112233))
    second = client.run(_picture(0x112233))
    assert not second.ran("1")
    assert second.images_of("2") == first.images_of("2")


def test_an_unknown_node_is_refused(client: Client) -> None:
    result = client.run({"1": {"class_type": "NoSuchNode", "inputs": {}}})
    assert result.error is not None
    assert "NoSuchNode" in result.error.message
    assert result.images == []


def test_a_bad_value_is_refused_at_its_node(client: Client) -> None:
    result = client.run(_picture(1, width=-5))
    assert result.error is not None
    assert (result.error.node_id, result.error.node_type) == ("1", "EmptyImage")
    assert "width" in result.error.message


def test_an_error_while_running_names_its_node(client: Client) -> None:
    graph = _picture(2)
    graph["3"] = {
        "class_type": "EmptyImage",
        "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0},
    }
    graph["4"] = {
        "class_type": "ImageToMask",
        "inputs": {"image": ["3", 0], "channel": "alpha"},
    }  # it has none
    graph["5"] = {"class_type": "MaskPreview", "inputs": {"mask": ["4", 0]}}
    result = client.run(graph)
    assert result.error is not None
    assert (result.error.node_id, result.error.node_type) == ("4", "ImageToMask")
    assert result.error.type == "IndexError"
    assert client.run(_picture(3)).ok, "the next run is normal again"


def test_an_uploaded_picture_can_be_loaded(client: Client) -> None:
    file = io.BytesIO()
    Image.new("RGB", (10, 6), (9, 8, 7)).save(file, "PNG")
    name = client.upload_image(file.getvalue(), "uploaded.png")
    graph: Prompt = {
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    (data,) = client.run(graph).images_of("2")
    assert Image.open(io.BytesIO(data)).convert("RGB").getpixel((3, 3)) == (9, 8, 7)


def test_an_interrupt_stops_a_run(client: Client) -> None:
    """A chain of slow blurs of one large picture, stopped as soon as the first is running."""
    graph: Prompt = {
        "0": {
            "class_type": "EmptyImage",
            "inputs": {"width": 2048, "height": 2048, "batch_size": 1, "color": 7},
        }
    }
    for number in range(1, 60):
        inputs = {"image": [str(number - 1), 0], "blur_radius": 31, "sigma": 9.0}
        graph[str(number)] = {"class_type": "ImageBlur", "inputs": inputs}
    graph["99"] = {"class_type": "PreviewImage", "inputs": {"images": ["59", 0]}}
    stopped: list[float] = []

    def stop(event: Event) -> None:
        if event.type == "executing" and event.data.get("node") == "1":
            client.interrupt()
            stopped.append(time.monotonic())

    result = client.run(graph, on_event=stop)
    assert stopped
    assert result.error is not None and result.error.type == "interrupted"
    assert not result.ran("59")
    assert client.run(_picture(4)).ok
