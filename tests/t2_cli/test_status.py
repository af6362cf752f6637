"""What `dfs status` says, and when it says that something is wrong."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest

from dfsmount.cli import status
from dfsmount.cli.app import main
from dfswire.health import RepairStatus
from dfswire.jobs import JobStatus
from dfswire.status import ClusterStatus
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
        "misplaced": 0,
    }
    assert answer["servers"][0]["state"] == "up"
    assert answer["servers"][0]["disks"][0]["quarantined"] == 0


def test_a_healthy_cluster_for_people(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, cluster(server(), server(port=2))) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("health   OK\n")
    assert "127.0.0.1:2" in shown
    assert "chunks   2 (6 bytes)\n" in shown
    assert re.search(r"2 replicas +#{30} 2\n", shown)


@pytest.mark.parametrize(
    ("reply", "worry"),
    [
        (cluster(server(), server("down", port=2)), "not up: 127.0.0.1:2"),
        (cluster(server("suspect")), "not up: 127.0.0.1:1"),
        (cluster(server(failed=True)), "failed disk: /d1 on 127.0.0.1:1"),
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
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("health   DEGRADED: ")
    assert worry in first
    assert run(monkeypatch, reply, "--json") == 1
    health = json.loads(capsys.readouterr().out)["health"]
    assert health["state"] == "degraded"
    assert worry in health["worries"][0]["what"]
    assert health["worries"][0]["do"]


def test_the_worst_comes_first_and_each_has_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, cluster(server("down"), server(port=2), lost=1, under=3)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(": 1; bring back the servers that are not up")
    assert "too few replicas: 2; 2 replicas need as many servers; 1 are up" in lines[1]
    assert lines[2].strip().startswith("not up: 127.0.0.1:1 (down, heard 7 s ago); start its")


def test_a_server_that_is_drained_may_be_away(monkeypatch: pytest.MonkeyPatch) -> None:
    away = msgspec.structs.replace(server("down"), admin="drained")
    assert run(monkeypatch, cluster(away, server(port=2))) == 0


def test_a_full_cluster(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = msgspec.structs.replace(cluster(server()), total_bytes=1000, free_bytes=49)
    assert run(monkeypatch, full) == 1
    assert "nearly full; add a server" in capsys.readouterr().out


def test_metad_has_just_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody has told yet how much is free."""
    servers = [msgspec.structs.replace(server("suspect", port=n), heard=False) for n in (1, 2)]
    reply = msgspec.structs.replace(
        cluster(*servers), total_bytes=0, free_bytes=0, journal_copies_wanted=1
    )
    assert run(monkeypatch, reply) == 1
    shown = capsys.readouterr().out
    assert "127.0.0.1:1 (suspect, not heard since metad started 7 s ago), 127" in shown
    assert "wait some seconds: metad has just started" in shown
    assert "suspect, not heard since metad" in shown.splitlines()[-1]
    assert "what is free is not known yet" in shown
    assert "full" not in shown and "start more chunkds" not in shown
    one = msgspec.structs.replace(
        cluster(servers[0], server(port=2)), total_bytes=1000, free_bytes=0
    )
    assert run(monkeypatch, one) == 1
    assert "full" not in capsys.readouterr().out
    lost = msgspec.structs.replace(cluster(servers[0], server("down", port=2)))
    assert run(monkeypatch, lost) == 1
    assert "start its chunkd" in capsys.readouterr().out


def test_a_drain_that_cannot_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reply = msgspec.structs.replace(cluster(server()), stuck=["server x: needs 2"])
    assert run(monkeypatch, reply) == 1
    assert "cannot be drained: server x: needs 2; add servers" in capsys.readouterr().out


def test_being_repaired(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = cluster(server(port=1), server(port=2), under=1)
    assert run(monkeypatch, waiting) == 1
    shown = capsys.readouterr().out
    assert "nothing: it is repaired from the other servers soon" in shown
    assert "repair  " not in shown
    progress = RepairStatus(
        chunks=3, running=2, bytes_left=4000, bytes_per_s=2000, eta_s=200, excess=5
    )
    assert run(monkeypatch, msgspec.structs.replace(waiting, repair=progress)) == 1
    shown = capsys.readouterr().out
    assert "nothing: it is being repaired" in shown
    line = "repair   3 chunks, 4.0 kB to copy, 2 copies under way, 2.0 kB/s, done in 3 min\n"
    assert line in shown
    assert "surplus  5 copies are too many" in shown


def test_a_slow_server(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    slow = msgspec.structs.replace(server("suspect"), reason="2 of 3 callers wait")
    assert run(monkeypatch, cluster(slow)) == 1
    shown = capsys.readouterr().out
    assert "not up: 127.0.0.1:1 (suspect, 2 of 3 callers wait)" in shown
    assert "suspect, 2 of 3 callers wait" in shown.splitlines()[-1]


def test_copies_of_the_journal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fine = msgspec.structs.replace(cluster(server()), journal_copies=2, journal_copies_wanted=2)
    assert run(monkeypatch, fine) == 0
    assert "journal  2 of 2 copies in step" in capsys.readouterr().out
    assert run(monkeypatch, msgspec.structs.replace(fine, journal_copies=1)) == 1
    assert "copies of the metadata journal: 1 of 2; nothing" in capsys.readouterr().out


def test_running_jobs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    job = JobStatus(
        job=1,
        name="rebalance",
        kind="rebalance",
        argument="{}",
        state="running",
        done=3,
        total=4,
        unit="bytes",
        message="2 moves are under way, at 100 MB/s in all at most",
        started_ns=0,
    )
    waiting = msgspec.structs.replace(job, name="drain", total=0, message="waits")
    reply = msgspec.structs.replace(cluster(server()), jobs=[job, waiting])
    assert run(monkeypatch, reply) == 0
    shown = capsys.readouterr().out
    assert "job      rebalance: 75 % 2 moves are under way, at 100 MB/s in all at most\n" in shown
    assert "job      drain: waits\n" in shown


def test_copies_in_the_wrong_places_and_a_held_reclaim(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reply = cluster(server())
    chunks = msgspec.structs.replace(reply.chunks, misplaced=7)
    reply = msgspec.structs.replace(reply, chunks=chunks, reclaim_held="restored yesterday")
    assert run(monkeypatch, reply) == 1
    shown = capsys.readouterr().out
    assert "in one failure domain, or not where their label is: 7; nothing: they are moved" in shown
    assert "nothing is deleted: restored yesterday; look, then say 'dfs metad release'" in shown
