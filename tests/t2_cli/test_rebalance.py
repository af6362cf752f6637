"""`dfs rebalance`: what is asked and shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dfsmount.cli import rebalance
from dfsmount.cli.app import main
from dfswire.jobs import StartJob
from dfswire.moving import DiskPlan, PlannedMove, RebalancePlan, RebalanceRequest
from tests.t2_cli.test_jobs import JOB

PLAN = RebalancePlan(
    moves=2,
    bytes=1 << 20,
    described=[PlannedMove(chunk=bytes(16), bytes=1 << 19, source="a" * 32, destination="b" * 32)],
    disks=[DiskPlan(disk="a" * 32, before=0.5, after=0.25)],
    complete=False,
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    asked: list[Any] = []

    def ask(*question: Any, **_: Any) -> Any:
        asked.append(question)
        return JOB if question[1] == "job.start" else PLAN

    monkeypatch.setattr(rebalance, "ask", ask)
    return asked


def test_the_plan(asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rebalance", "--dry-run", "--url", "h:1"]) == 0
    assert asked == [("h:1", "cluster.rebalance_plan", RebalanceRequest())]
    shown = capsys.readouterr().out
    for text in ("50.0%", "25.0%", "aaaaaaaa -> bbbbbbbb", "... and 1 more", "nothing was done"):
        assert text in shown
    assert main(["rebalance", "--dry-run", "--url", "h:1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["moves"] == 2


def test_now(asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rebalance", "--now", "--url", "h:1"]) == 0
    assert asked == [("h:1", "job.start", StartJob(kind="rebalance"))]
    assert "job 7" in capsys.readouterr().out


@pytest.mark.parametrize("options", [[], ["--now", "--dry-run"]])
def test_one_of_both(options: list[str]) -> None:
    assert main(["rebalance", *options, "--url", "h:1"]) == 2


def test_there_is_nothing_to_wait_for_in_a_plan(
    asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rebalance", "--dry-run", "--wait", "--url", "h:1"]) == 2
    assert capsys.readouterr().err == "dfs: --wait is for --now; --dry-run begins nothing\n"
    assert asked == []
