"""A few runs of the stress program; `python -m devtools.stress` makes two hundred."""

from __future__ import annotations

from devtools.client import Client
from devtools.server import Server
from devtools.stress import BRANCHES, stress, write_lora


def test_branches_of_one_model_never_touch_each_other(client: Client, server: Server) -> None:
    write_lora(server.log.parent / "models" / "loras")
    report = stress(client, server.process.pid, runs=8, seeds=2, steps=3, interrupted=0.3)
    assert report["different"] == []
    assert report["interrupted"] >= 1
    assert report["compared"] >= 4 * len(BRANCHES)
    assert len(report["memory_mib"]) == 8
