"""The Explorer's routes. Each route reads from the trace with the given key and changes nothing.

    GET /revelio/traces/{key}                                           names and sizes, as JSON
    GET /revelio/traces/{key}/codes?hook_point=&role=&item=             codes by feature, as safetensors
    GET /revelio/traces/{key}/concepts?hook_point=&role=&item=          maps of concepts, as safetensors
    GET /revelio/traces/{key}/neighbours?hook_point=&feature=           nearest features, as JSON
    GET /revelio/traces/{key}/examples?hook_point=&feature=             top examples, as safetensors

A key is 32 random hexadecimal digits made by the server. All other values are checked against the trace, and
no request contains a path. A request can make the server read only two files: the trace's file in the temp
folder, and the feature index that Load SAE found next to the SAE of the run.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from ...errors import RevelioError
from . import trace_contents, trace_registry
from .trace_registry import GONE, Known

_KEY = re.compile(r"[0-9a-f]{32}")
_NUMBER = re.compile(r"\d{1,9}")
_MAX_QUERY = 512
_FOREVER = {"Cache-Control": "private, max-age=86400, immutable"}  # a trace never changes

Handler = Callable[[web.Request], Awaitable[web.Response]]


def register() -> None:
    """Add the routes to the running server, once; do nothing without a server."""
    module = sys.modules.get("server")  # ComfyUI's; importing it would start to set up a server
    server = getattr(getattr(module, "PromptServer", None), "instance", None)
    if server is not None and not getattr(server, "_revelio_routes", False):
        server._revelio_routes = True
        add_to(server.routes)


def add_to(routes: web.RouteTableDef) -> None:
    """Add the Explorer's routes to a route table."""
    base = "/revelio/traces/{key}"
    for end, answer in (
        ("", _description),
        ("/codes", _codes),
        ("/concepts", _concepts),
        ("/neighbours", _neighbours),
        ("/examples", _examples),
    ):
        routes.get(base + end)(_guarded(answer))


class _Refused(Exception):
    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def _guarded(answer: Callable[[str, dict[str, str]], web.Response]) -> Handler:
    """Return a handler that runs `answer(key, query)` in a thread and turns errors into 4xx responses."""

    async def handle(request: web.Request) -> web.Response:
        try:
            return await asyncio.to_thread(answer, _checked_key(request), _checked_query(request))
        except _Refused as refusal:
            return web.json_response({"error": str(refusal)}, status=refusal.status)
        except RevelioError as problem:
            return web.json_response({"error": str(problem)}, status=400)

    return handle


def _checked_key(request: web.Request) -> str:
    if request.can_read_body or (request.content_length or 0) > 0:
        raise _Refused(413, "This address takes no request body.")
    key = request.match_info["key"]
    if not _KEY.fullmatch(key):
        raise _Refused(400, "The key of a trace must be 32 hexadecimal digits.")
    return key


def _checked_query(request: web.Request) -> dict[str, str]:
    if len(request.query_string) > _MAX_QUERY:
        raise _Refused(414, "This address is too long.")
    query = dict(request.query)
    if len(query) != len(request.query):
        raise _Refused(400, "Each query parameter may appear only once.")
    return query


def _description(key: str, query: dict[str, str]) -> web.Response:
    _require_parameters(query)
    trace, dictionaries = _find_trace(key)
    return web.json_response(
        trace_contents.describe(key, trace, dictionaries, trace_registry.SERVED_TRACES.indexes(key))
    )


def _codes(key: str, query: dict[str, str]) -> web.Response:
    _require_parameters(query, "hook_point", "role", "item")
    trace, _ = _find_trace(key)
    return _bytes(
        trace_contents.codes(trace, _hook_point(trace, query), query["role"], _number(query, "item"))
    )


def _concepts(key: str, query: dict[str, str]) -> web.Response:
    _require_parameters(query, "hook_point", "role", "item")
    trace, dictionaries = _find_trace(key)
    hook_point = _hook_point(trace, query)
    dictionary = _dictionary(dictionaries, hook_point)
    return _bytes(
        trace_contents.concepts(trace, dictionary, hook_point, query["role"], _number(query, "item"))
    )


def _neighbours(key: str, query: dict[str, str]) -> web.Response:
    _require_parameters(query, "hook_point", "feature")
    trace, dictionaries = _find_trace(key)
    hook_point = _hook_point(trace, query)
    feature = _feature(trace, hook_point, query)
    found = trace_contents.neighbours(_dictionary(dictionaries, hook_point), feature)
    return web.json_response({"neighbours": found}, headers=_FOREVER)


def _examples(key: str, query: dict[str, str]) -> web.Response:
    _require_parameters(query, "hook_point", "feature")
    trace, _ = _find_trace(key)
    hook_point = _hook_point(trace, query)
    feature = _feature(trace, hook_point, query)
    index = trace_registry.SERVED_TRACES.indexes(key).get(hook_point)
    if index is None:
        raise _Refused(404, f"There is no feature index for {hook_point}.")
    return _bytes(trace_contents.examples(index, feature))


def _find_trace(key: str) -> Any:
    try:
        return trace_registry.SERVED_TRACES.find(key)
    except KeyError:
        raise _Refused(404, "This run is no longer on the server; run the workflow again.") from None


def _dictionary(known: Known, hook_point: str) -> Any:
    """Return the dictionary of a hook point, or None if no dictionary was ever connected there."""
    if hook_point in known and known[hook_point] is None:
        raise _Refused(410, GONE)
    return known.get(hook_point)


def _require_parameters(query: dict[str, str], *names: str) -> None:
    if set(query) != set(names):
        raise _Refused(400, f"The query parameters must be exactly: {', '.join(names) or 'none'}.")


def _hook_point(trace: Any, query: dict[str, str]) -> str:
    name = query["hook_point"]
    if name not in trace.hook_points:
        raise _Refused(404, "This hook point was not recorded.")
    if "role" in query and query["role"] not in trace.roles(name):
        raise _Refused(404, "This role was not recorded.")
    return name


def _feature(trace: Any, hook_point: str, query: dict[str, str]) -> int:
    feature = _number(query, "feature")
    if feature >= trace.dictionaries[hook_point].n_features:
        raise _Refused(404, f"There is no feature {feature} at {hook_point}.")
    return feature


def _number(query: dict[str, str], name: str) -> int:
    if not _NUMBER.fullmatch(query[name]):
        raise _Refused(400, f"The {name} must be a whole number from 0.")
    return int(query[name])


def _bytes(data: bytes) -> web.Response:
    return web.Response(body=data, content_type="application/octet-stream", headers=_FOREVER)
