"""What `dfs fsck` says, and when it ends with 1."""

from __future__ import annotations

import io
import json
from typing import Any

import msgspec
import pytest

from dfsmount.cli import fsck
from dfsmount.cli.app import main
from dfswire.fsck import Finding, FsckReport, FsckRequest
from dfswire.jobs import JobsReply, JobStatus, StartJob
from dfswire.verify import FindLost, LostFile, LostRange, LostReply


def run(monkeypatch: pytest.MonkeyPatch, count: int, *options: str) -> tuple[int, list[Any]]:
    findings = [Finding(check="nlink", subject="inode 7", message="is 2, should be 1")]
    report = FsckReport(
        findings=findings[:count],
        count=count,
        inodes=1,
        dentries=2,
        extents=3,
        chunks=4,
        replicas=5,
        orphans=6,
    )
    asked: list[Any] = []
    monkeypatch.setattr(fsck, "ask", lambda *question, **_: asked.append(question) or report)
    return main(["fsck", "--url", "h:1", *options]), asked


def test_nothing_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ended, asked = run(monkeypatch, 0, "--limit", "5")
    assert ended == 0
    assert asked == [("h:1", "cluster.fsck", FsckRequest(limit=5))]
    assert "6 orphans: no findings" in capsys.readouterr().out


def test_findings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, 3)[0] == 1
    shown = capsys.readouterr().out
    assert "nlink: inode 7: is 2, should be 1\n... and 2 more" in shown
    assert shown.endswith("findings: 3\n")


def test_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, 1, "--json")[0] == 1
    assert json.loads(capsys.readouterr().out)["findings"][0]["check"] == "nlink"


def planned(*, repaired: bool) -> FsckReport:
    fix = Finding(check="nlink", subject="inode 7", message="nlink is 1")
    return FsckReport(
        findings=[] if repaired else [fix],
        count=0 if repaired else 1,
        inodes=1,
        dentries=2,
        extents=3,
        chunks=4,
        replicas=5,
        orphans=6,
        fixes=[fix],
        fixes_count=2,
        repaired=repaired,
    )


@pytest.mark.parametrize(("answer", "asked"), [("y\n", ["plan", "do"]), ("n\n", ["plan"])])
def test_a_repair_is_shown_before_it_is_done(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    asked: list[str],
) -> None:
    seen: list[str] = []

    def ask(metad: str, call: str, request: FsckRequest, **_: object) -> FsckReport:
        seen.append(request.repair)
        return planned(repaired=request.repair == "do")

    monkeypatch.setattr(fsck, "ask", ask)
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    assert main(["fsck", "--url", "h:1", "--repair"]) == (0 if "do" in asked else 1)
    assert seen == asked
    shown = capsys.readouterr().out
    assert "repair would do: nlink: inode 7: nlink is 1\n... and 1 more" in shown
    assert ("repaired: nlink" in shown) == ("do" in asked)


def test_a_repair_without_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsck, "ask", lambda *_, **__: planned(repaired=True))
    assert main(["fsck", "--url", "h:1", "--repair", "--yes"]) == 0
    assert main(["fsck", "--url", "h:1", "--repair", "--lost"]) == 2


@pytest.mark.parametrize("as_json", [False, True])
def test_lost_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    files = [
        LostFile(inode=7, paths=[b"/a"], ranges=[LostRange(offset=0, length=9, sure=True)]),
        LostFile(inode=8, paths=[], ranges=[LostRange(offset=5, length=1, sure=False)]),
    ]
    monkeypatch.setattr(fsck, "ask", lambda *_, **__: LostReply(files=files, count=3))
    assert main(["fsck", "--url", "h:1", "--lost", *(["--json"] if as_json else [])]) == 1
    shown = capsys.readouterr().out
    if as_json:
        assert json.loads(shown)["files"][0]["paths"] == ["/a"]
    else:
        assert shown.splitlines() == [
            "/a: bytes 0-8: lost",
            "inode 8 (unlinked): bytes 5-5: not readable now, some disks are away or not yet asked",
            "... and 1 more files (--limit shows them)",
            "files with lost bytes: 3",
        ]


def test_nothing_lost(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(fsck, "ask", lambda *_, **__: LostReply(files=[], count=0))
    assert main(["fsck", "--url", "h:1", "--lost"]) == 0
    assert capsys.readouterr().out == "no bytes are lost\n"


VERIFYING = JobStatus(
    job=7,
    name="verify-7",
    kind="verify",
    argument="{}",
    state="running",
    done=1,
    total=2,
    unit="chunks",
    message="",
    started_ns=0,
)
FIGURES = {"copies": 4, "bad": 1, "not_reached": 2}


class Deep:
    """A metad that verifies copies."""

    def __init__(self, *lost: LostFile) -> None:
        self.asked: list[Any] = []
        self.answers: dict[str, Any] = {
            "job.list": JobsReply(jobs=[VERIFYING]),
            "job.start": VERIFYING,
            "cluster.lost": LostReply(files=list(lost), count=len(lost)),
            "cluster.fsck": planned(repaired=True),
        }

    def ask(self, metad: str, call: str, request: Any, **_: object) -> Any:
        self.asked.append(request)
        return self.answers[call]


def deep(monkeypatch: pytest.MonkeyPatch, state: str, *lost: LostFile) -> Deep:
    metad = Deep(*lost)
    ending = msgspec.structs.replace(
        VERIFYING, state=state, message="copies verified: 4", figures=FIGURES
    )
    monkeypatch.setattr(fsck, "ask", metad.ask)
    monkeypatch.setattr(fsck, "watch", lambda metad, job: ending)
    return metad


@pytest.mark.parametrize(("state", "ended"), [("done", 0), ("failed", 2)])
def test_deep_watches_the_job_that_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], state: str, ended: int
) -> None:
    metad = deep(monkeypatch, state)
    assert main(["fsck", "--url", "h:1", "--deep", "--limit", "9"]) == ended
    assert metad.asked[1] == StartJob(kind="verify", name="verify-7")
    assert metad.asked[2] == FindLost(limit=9)
    shown = capsys.readouterr().out
    assert f"job 7 (verify-7) {state}: copies verified: 4\nno bytes are lost\n" in shown


@pytest.mark.parametrize("ended", [0, 1])
def test_deep_tells_programs_what_it_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ended: int
) -> None:
    file = LostFile(inode=7, paths=[b"/a"], ranges=[LostRange(offset=0, length=9, sure=True)])
    deep(monkeypatch, "done", *[file] * ended)
    assert main(["fsck", "--url", "h:1", "--deep", "--json"]) == ended
    answer = json.loads(capsys.readouterr().out)
    assert answer["count"] == 0
    assert answer["deep"]["job"]["figures"] == FIGURES
    assert answer["deep"]["lost"]["count"] == ended
    assert [each["paths"] for each in answer["deep"]["lost"]["files"]] == [["/a"]] * ended


def test_lost_bytes_that_the_deep_check_found_end_with_1_for_people_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deep(monkeypatch, "done", LostFile(inode=7, paths=[b"/a"], ranges=[]))
    assert main(["fsck", "--url", "h:1", "--deep"]) == 1
    assert "files with lost bytes: 1" in capsys.readouterr().out


def test_yes_is_an_answer_to_repair_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended, asked = run(monkeypatch, 0, "--yes")
    assert (ended, asked) == (2, [])
    assert capsys.readouterr().err == "dfs: --yes is for --repair: give both\n"
