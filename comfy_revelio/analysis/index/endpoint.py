"""Get labels from a vision model that sees the crops, through OpenAI's chat completions API at any address.

Unused unless the user gives an address. Each request contains the instruction below and one image of a
feature's crops, side by side, but no captions, names or numbers.
"""

from __future__ import annotations

import base64
import io
import json
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image
from torch import Tensor

from ...errors import RevelioError
from .feature_index import LONGEST_LABEL

INSTRUCTION = (
    "These crops are the parts of different images to which one detector responds most strongly. Say in one "
    "to four words what they have in common, as concretely as you can. Answer with these words only."
)
_ACROSS = 4
_CROP_SIDE = 128
"""Side in pixels to which each crop is enlarged, for models that see little in a small image."""
_MOST_ANSWER = 2**20


@dataclass(frozen=True)
class Endpoint:
    """Where to send the crops."""

    url: str
    """Base address, such as http://localhost:11434/v1."""
    model: str
    """The model's name at that address."""
    key: str = field(default="", repr=False)
    timeout: float = 60.0
    """Seconds."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RevelioError(
                f"The endpoint must be an address such as http://localhost:11434/v1, not {self.url!r}."
            )
        if not self.model:
            raise RevelioError("The endpoint needs the name of a model that can see images; give one.")


def ask(endpoint: Endpoint, crops: Tensor) -> str:
    """Ask the model what the given crops (uint8 [m, side, side, 3]) have in common; return its answer or "".

    Raises RevelioError if the endpoint cannot be reached, refuses, or answers in another format.
    """
    image = base64.b64encode(_sheet(crops)).decode()
    content = [
        {"type": "text", "text": INSTRUCTION},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
    ]
    body = {
        "model": endpoint.model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 400,
        "temperature": 0,
    }
    answer = _post(endpoint, json.dumps(body).encode())
    try:
        text = json.loads(answer)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        text = None
    if not isinstance(text, str):
        raise RevelioError(
            f"{endpoint.url} did not answer as OpenAI's chat completions do; check the address, which "
            "usually ends in /v1."
        )
    return _one_line(text)


def _post(endpoint: Endpoint, body: bytes) -> bytes:
    address = f"{endpoint.url.rstrip('/')}/chat/completions"
    headers = {"Content-Type": "application/json"}
    if endpoint.key:
        headers["Authorization"] = f"Bearer {endpoint.key}"
    request = urllib.request.Request(address, data=body, headers=headers, method="POST")
    # No redirects: the crops and the key are sent to the user's address and nowhere else.
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        with opener.open(request, timeout=endpoint.timeout) as answer:
            read = answer.read(_MOST_ANSWER + 1)
    except urllib.error.HTTPError as error:
        raise RevelioError(
            f"{endpoint.url} refused with {error.code} ({error.reason}); check address, model and key."
        ) from None
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error or type(error).__name__
        raise RevelioError(
            f"{endpoint.url} did not respond ({reason}); check that it runs and answers within "
            f"{endpoint.timeout:g} seconds."
        ) from None
    if len(read) > _MOST_ANSWER:
        raise RevelioError(f"{endpoint.url} answered more than {_MOST_ANSWER} bytes; check the address.")
    return read


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _one_line(text: str) -> str:
    """Return the first line that is not empty, without the reasoning, quotes and markup that models add."""
    if "</think>" in text:
        text = text.rpartition("</think>")[2]
    plain = ("".join(c if c.isprintable() else " " for c in line) for line in text.splitlines())
    line = next((" ".join(line.split()) for line in plain if line.strip()), "")
    return line.strip("\"'`*#. ")[:LONGEST_LABEL].strip()


def _sheet(crops: Tensor) -> bytes:
    """Return the crops side by side as a PNG."""
    across = min(_ACROSS, len(crops))
    down = -(-len(crops) // across)
    sheet = Image.new("RGB", (across * _CROP_SIDE, down * _CROP_SIDE))
    for number, crop in enumerate(crops.numpy()):
        image = Image.fromarray(np.ascontiguousarray(crop)).resize((_CROP_SIDE, _CROP_SIDE))
        sheet.paste(image, (number % across * _CROP_SIDE, number // across * _CROP_SIDE))
    out = io.BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()
