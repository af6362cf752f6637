"""`dfs node` and `dfs disk`: what is asked, what is shown, and how they end."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from dfsmount.cli import admin
from dfsmount.cli.app import main
from dfswire.admin import AdminReply, FileLoss, Losses, RemoveTarget, Target
from dfswire.hosts import Admin
from tests.t2_cli.answers import cluster, server
from tests.t2_cli.test_jobs import JOB

DRAINING = AdminReply(server="s" * 32, disk="", admin="draining", job=JOB)
LOSSES = Losses(
    chunks=3,
    bytes=1 << 20,
    files=3,
    described=[FileLoss(inode=5, path=b"/a\xff", chunks=2), FileLoss(inode=6, path=b"", chunks=1)],
)


class Asked(list[Any]):
    answer: Any = DRAINING
    status = cluster()

    def __call__(self, *question: Any, deadline_s: float) -> Any:
        if question[1] == "cluster.status":
            return self.status
        self.append(question)
        return self.answer


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked()
    monkeypatch.setattr(admin, "ask", asked)
    return asked


def run(*arguments: str) -> int:
    return main([*arguments, "--url", "h:1"])


@pytest.mark.parametrize(
    ("arguments", "call", "request_"),
    [
        (["node", "drain", "s"], "admin.drain", Target(server="s")),
        (["node", "enable", "s"], "admin.enable", Target(server="s")),
        (["disk", "drain", "d"], "admin.drain", Target(disk="d")),
        (["disk", "enable", "d"], "admin.enable", Target(disk="d")),
    ],
)
def test_what_is_asked_and_shown(
    asked: Asked,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    call: str,
    request_: Target,
) -> None:
    assert run(*arguments) == 0
    assert asked == [("h:1", call, request_)]
    shown = capsys.readouterr().out
    assert f"server {'s' * 32}: draining\njob 7 (drain-7) running" in shown
    assert run(*arguments, "--json") == 0
    assert json.loads(capsys.readouterr().out)["job"]["job"] == 7


@pytest.mark.parametrize("kind", ["node", "disk"])
def test_what_would_be_lost_is_told_and_nothing_done(
    asked: Asked, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    asked.answer = AdminReply(server="s", disk="", admin="drained", losses=LOSSES)
    assert run(kind, "remove", "x") == 1
    shown = capsys.readouterr()
    assert "The last copies of 3 chunks (1.0 MB) of 3 files are on server s" in shown.out
    assert "would be lost:\n  /a\\xff: 2 chunks\n  inode 6 (without a name): 1 chunk\n" in shown.out
    assert "... and 1 more files" in shown.out
    assert "--accept-loss does it nevertheless" in shown.err
    assert run(kind, "remove", "x", "--json") == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["losses"]["described"][0]["path"] == "/a\\xff"


@pytest.mark.parametrize("state", ["done", "failed"])
def test_removed_with_leave(
    asked: Asked,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    state: str,
) -> None:
    ended = msgspec.structs.replace(JOB, state=state)
    monkeypatch.setattr(admin, "watch", lambda address, job: ended)
    asked.answer = AdminReply(server="s", disk="d", admin="removed", losses=LOSSES, job=JOB)
    assert run("disk", "remove", "d", "--accept-loss", "--wait") == int(state == "failed")
    assert asked[0][2] == RemoveTarget(disk="d", accept_loss=True)
    shown = capsys.readouterr().out
    assert "they are lost" in shown
    assert f"disk d: removed\njob 7 (drain-7) {state}" in shown


@pytest.mark.parametrize("admin_now", ["drained", "enabled"])
@pytest.mark.parametrize("kind", ["node", "disk"])
def test_what_has_become_of_it_when_the_job_has_ended(
    asked: Asked,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    admin_now: Admin,
    kind: str,
) -> None:
    ended = msgspec.structs.replace(JOB, state="done", message="everything is elsewhere")
    monkeypatch.setattr(admin, "watch", lambda address, job: ended)
    one, two = server(port=1), server(port=2)
    if kind == "node":
        begun = msgspec.structs.replace(DRAINING, server=two.server_id)
        two = msgspec.structs.replace(two, admin=admin_now)
    else:
        begun = msgspec.structs.replace(DRAINING, server=two.server_id, disk="d2")
        disks = [msgspec.structs.replace(two.disks[0], disk="d2")]
        marks = {"d2": admin_now} if admin_now != "enabled" else {}
        two = msgspec.structs.replace(two, disks=disks, disk_admin=marks)
    asked.status = cluster(one, two)
    asked.answer = begun
    assert run(kind, "drain", "x", "--wait") == 0
    assert f": {admin_now}\n" in capsys.readouterr().out
    assert run(kind, "drain", "x", "--wait", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["admin"], answer["job"]["state"]) == (admin_now, "done")


def test_a_disk_that_metad_has_not_heard_of_since_its_start(
    asked: Asked, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "watch", lambda address, job: job)
    asked.answer = msgspec.structs.replace(DRAINING, disk="d9")
    assert run("disk", "drain", "d", "--wait") == 0
    assert "disk d9: draining\n" in capsys.readouterr().out
