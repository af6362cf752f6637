"""That pjdfstest.py can fail: its judgement of outputs, and a small suite of our own on a mount."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conformance.pjdfstest import main
from tests.conformance.tap import judge, table
from tests.t4_mount.harness import missing_for_mounts


def failures(output: str, status: int = 0) -> list[str]:
    return judge("d", "n", output, status, 1.0).failures


def test_success_is_what_was_planned_and_reported() -> None:
    assert not failures("1..2\nok 1\nok 2 - words\n")
    assert not failures("ok 1\n1..1\n")
    assert not failures("1..1\nnot ok 1 # TODO not yet\n")
    assert judge("d", "n", "1..2\nok 1\nok 2\n", 0, 1.0).tests == 2


@pytest.mark.parametrize(
    ("output", "status"),
    [
        ("1..2\nok 1\nnot ok 2 - tried\n", 0),
        ("1..2\nok 1\n", 0),  # it ended in the middle
        ("1..1\nok 1\nok 2\n", 0),
        ("ok 1\n", 0),
        ("", 0),
        ("1..1\nok 1\n", 1),
    ],
)
def test_everything_else_is_a_failure(output: str, status: int) -> None:
    assert len(failures(output, status)) == 1


def test_the_table_counts_by_directory() -> None:
    outcomes = [
        judge("rename", "00.t", "1..2\nok 1\nnot ok 2\n", 0, 1.0),
        judge("chmod", "00.t", "1..1\nok 1\n", 0, 2.0),
        judge("chmod", "01.t", "1..1\nok 1\n", 0, 2.0),
    ]
    assert table(outcomes).splitlines()[2:] == [
        "| chmod | 2 | 2 | 0 | 4 |",
        "| rename | 1 | 2 | 1 | 1 |",
        "| all | 3 | 4 | 1 | 5 |",
    ]


PROGRAM = """#!/bin/sh
# Stands for the program of the suite: says where it runs.
pwd
"""

TEST = """
maindir=$(cd "$(dirname "$0")/../.."; pwd)
one=$(cd "$PWD"; "$maindir/pjdfstest")
two=$(cd "$PWD"; "$maindir/pjdfstest")
echo 1..2
echo data >written && [ "$(cat written)" = data ] && echo ok 1
[ "$one" {relation} "$two" ] && echo ok 2 || echo "not ok 2 - $one, $two"
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A suite of one test, which wants each command on the other mount than the one before."""
    if missing_for_mounts() and os.environ.get("CI") != "true":
        pytest.skip(missing_for_mounts())
    (tmp_path / "tests" / "d").mkdir(parents=True)
    (tmp_path / "tests" / "d" / "00.t").write_text(TEST.replace("{relation}", "!="))
    (tmp_path / "pjdfstest").write_text(PROGRAM)
    (tmp_path / "pjdfstest").chmod(0o755)
    return tmp_path


def test_a_suite_on_one_mount_and_on_two_by_turns(
    suite: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([str(suite), "two-mounts"]) == 0
    assert main([str(suite), "nocache"]) == 1
    printed = capfd.readouterr().out
    assert "| all | 1 | 2 | 0 |" in printed
    assert "d/00.t: not ok 2" in printed


def test_what_is_no_suite_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for words in ([str(tmp_path)], [str(tmp_path), "sideways"]):
        with pytest.raises(SystemExit):
            main(words)
    assert "build it there first" in capfd.readouterr().err
