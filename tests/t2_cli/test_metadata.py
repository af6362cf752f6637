"""`dfs metad journal` and `dfs metad check`: what they ask for, and show."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from dfsmount.cli import metadata
from dfsmount.cli.app import main
from dfswire.fsck import Finding, FsckReport
from dfswire.journal import FollowerStatus, JournalStatus, Position
from tests.t2_cli.answers import cluster, server

POSITION = Position(epoch=2, term=1 << 32, number=77, time_ns=5, digest=b"d" * 16)
STATUS = JournalStatus(
    position=POSITION,
    safe=76,
    wanted=1,
    copies=1,
    followers=[FollowerStatus(server_id="s1", state="in step", number=77)],
    reclaim_held="restored",
)
CLEAN = FsckReport(
    findings=[], count=0, inodes=1, dentries=0, extents=0, chunks=0, replicas=0, orphans=0
)
ENTRY = {
    "number": 77,
    "epoch": 2,
    "term": 1 << 32,
    "time_ns": 10**18,
    "size_bytes": 99,
    "changes": {"insert inode": 1, "update inode": 2},
    "statements": [["INSERT INTO inode VALUES (?)", 1]],
}


class Answers:
    """A metad and metad.tool that do not exist."""

    def __init__(self) -> None:
        self.replies: dict[str, Any] = {
            "journal.status": STATUS,
            "cluster.fsck": CLEAN,
            "cluster.status": cluster(server(port=1), server("down", port=2)),
        }
        self.tool: list[str] = []
        self.checked: tuple[int, dict[str, Any]] = (
            0,
            {"entry": 3, "epoch": 1, "findings": [], "count": 0},
        )

    def ask(self, _metad: str, call: str, _request: object, **_: object) -> Any:
        return self.replies[call]

    def run(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        self.tool = list(arguments)
        if arguments[0] == "check":
            return self.checked
        return 0, {"entries": [ENTRY], "warnings": ["two:1 is damaged"]}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    made = Answers()
    monkeypatch.setattr(metadata, "ask", made.ask)
    monkeypatch.setattr(metadata, "_tool", made.run)
    return made


def test_how_far_it_is(answers: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metad", "journal", "--url", "h:1"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "entry 77 of epoch 2",
        "copies: 1 of 1, all up to entry 76",
        "  s1  in step, entry 77",
        "nothing is deleted: restored; see 'dfs metad release'",
    ]
    answers.replies["journal.status"] = msgspec.structs.replace(STATUS, copies=0)
    assert main(["metad", "journal", "--url", "h:1"]) == 1
    assert answers.tool == []


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        (["--last", "5"], ["127.0.0.1:1", "--last=5"]),
        (["--from", "a:1", "--from", "b:2"], ["a:1", "b:2", "--last=20"]),
        (["--entries", "5-9"], ["127.0.0.1:1", "--last=0", "--first=5", "--end=9"]),
        (["--entries", "5-"], ["127.0.0.1:1", "--last=0", "--first=5", "--end=0"]),
        (["--entries", "5"], ["127.0.0.1:1", "--last=0", "--first=5", "--end=5"]),
        (["--statements"], ["127.0.0.1:1", "--last=20", "--statements"]),
        (
            ["--since", "2026-01-01T00:00Z", "--until", "2026-01-02T01:00+01:00"],
            [
                "127.0.0.1:1",
                "--last=0",
                "--since=2026-01-01T00:00:00+00:00",
                "--until=2026-01-02T00:00:00+00:00",
            ],
        ),
    ],
)
def test_entries_are_asked_for(answers: Answers, options: list[str], asked: list[str]) -> None:
    assert main(["metad", "journal", "--url", "h:1", *options]) == 0
    assert answers.tool == ["journal", *asked]


def test_entries_are_shown(answers: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metad", "journal", "--url", "h:1", "--last", "1"]) == 0
    shown = capsys.readouterr()
    first, second = shown.out.splitlines()
    assert first.startswith("77  2001-09-0")
    assert first.endswith("epoch 2 term 4294967296  99 bytes  insert inode 1, update inode 2")
    assert second == "    1 x INSERT INTO inode VALUES (?)"
    assert shown.err == "dfs: warning: two:1 is damaged\n"
    assert main(["metad", "journal", "--url", "h:1", "--last", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["entries"] == [ENTRY]


def test_moments_are_told_as_for_events(
    answers: Answers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("time.time", lambda: 1_000_000_120.0)
    assert main(["metad", "journal", "--url", "h:1", "--since", "2m"]) == 0
    assert answers.tool[-1] == "--since=2001-09-09T01:46:40+00:00"
    assert main(["metad", "journal", "--url", "h:1", "--since", "soon"]) == 2
    assert "not a time: 'soon'; give 10m, 2h, 7d or an ISO time" in capsys.readouterr().err


def test_what_is_restored(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1_000_000_120.0)
    words = ["metad", "restore", "--from", "h:2", "--to", "sqlite:///db", "--json"]
    assert main([*words, "--at", "2m", "--epoch", "3"]) == 0
    moment = "2001-09-09T01:46:40+00:00"
    assert answers.tool == [
        *("restore", "h:2", "--to", "/db", "--at", moment, "--epoch", "3"),
    ]


@pytest.mark.parametrize("url", ["/a/db", "sqlite:///a/db", "sqlite:////a/db"])
def test_a_database_by_any_of_its_names(answers: Answers, url: str) -> None:
    assert main(["metad", "check", url]) == 0
    assert answers.tool == ["check", "/a/db"]
    assert main(["metad", "restore", "--from", "h:2", "--to", url, "--json"]) == 0
    assert answers.tool == ["restore", "h:2", "--to", "/a/db"]


def test_what_is_no_range(answers: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("a", "5-x", "-5", "5-2", "0"):
        assert main(["metad", "journal", "--url", "h:1", f"--entries={text}"]) == 2
        assert "not a range of entries" in capsys.readouterr().err
    answers.replies["cluster.status"] = cluster(server("down"))
    assert main(["metad", "journal", "--url", "h:1", "--last", "1"]) == 2
    assert "no chunkd is up" in capsys.readouterr().err


def test_a_running_metad_is_checked(answers: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metad", "check", "--url", "h:1"]) == 0
    assert capsys.readouterr().out == "entry 77 of epoch 2: no findings\n"
    finding = Finding(check="dentry", subject="inode 5", message="has no name")
    answers.replies["cluster.fsck"] = msgspec.structs.replace(CLEAN, findings=[finding], count=1)
    assert main(["metad", "check", "--url", "h:1", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "entry": 77,
        "epoch": 2,
        "findings": ["dentry: inode 5: has no name"],
        "count": 1,
    }
    assert main(["metad", "check", "--url", "h:1"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "dentry: inode 5: has no name",
        "entry 77 of epoch 2: findings: 1",
    ]
    assert answers.tool == []


def test_a_file_is_checked(answers: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metad", "check", "sqlite:///var/db"]) == 0
    assert answers.tool == ["check", "/var/db"]
    assert capsys.readouterr().out == "entry 3 of epoch 1: no findings\n"
    worse = {"entry": None, "epoch": None, "findings": ["SQLite: malformed"], "count": 102}
    answers.checked = (1, worse)
    assert main(["metad", "check", "/var/db"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "SQLite: malformed",
        "... and 101 more",
        "its entry cannot be read: findings: 102",
    ]
