"""What `dfs status` says, and when it says that something is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dfsmount.cli import status
from dfsmount.cli.app import main
from dfswire.cluster import ClusterStatus
from tests.t2_cli.answers import cluster, server


def run(monkeypatch: pytest.MonkeyPatch, reply: ClusterStatus, *options: str) -> int:
    asked: list[Any] = []
    monkeypatch.setattr(status, "ask", lambda *question: asked.append(question) or reply)
    ended = main(["status", "--url", "http://h:1", *options])
    assert [question[:2] for question in asked] == [("h:1", "cluster.status")]
    return ended


def test_json_has_every_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, cluster(server()), "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["chunks"] == {
        "total": 2,
        "bytes": 6,
        "under_replicated": 0,
        "lost": 0,
        "by_replicas": [0, 0, 2],
        "pending_delete": 0,
    }
    assert answer["servers"][0]["state"] == "up"
    assert answer["servers"][0]["disks"][0]["quarantined"] == 0


def test_a_healthy_cluster_for_people(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, cluster(server(), server(port=2))) == 0
    shown = capsys.readouterr().out
    assert "health   good" in shown
    assert "127.0.0.1:2" in shown
    assert "2 (6 bytes): 2 with 2" in shown


@pytest.mark.parametrize(
    ("reply", "worry"),
    [
        (cluster(server(), server("down", port=2)), "not up: 127.0.0.1:2"),
        (cluster(server("suspect")), "not up: 127.0.0.1:1"),
        (cluster(server(failed=True)), "failed disks: /d1 on 127.0.0.1:1"),
        (cluster(server(), under=1), "too few replicas: 1"),
        (cluster(server(), lost=1), "lost chunks (no server that is up has a good replica): 1"),
        (cluster(), "there are no servers"),
    ],
)
def test_what_needs_attention_ends_with_1(
    reply: ClusterStatus,
    worry: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, reply) == 1
    assert worry in capsys.readouterr().out
    assert run(monkeypatch, reply, "--json") == 1
    json.loads(capsys.readouterr().out)
