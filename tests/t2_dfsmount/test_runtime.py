"""Sessions of dead mounts are found, those of living ones are left alone."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

import pytest

from dfsmount.runtime import SessionFile, dead_sessions, default_directory


def test_a_locked_file_is_a_living_mount(tmp_path: Path) -> None:
    record = SessionFile(tmp_path / "run")
    record.write("host:1", "abc")
    # flock is per open file, so this process can play the next mount
    assert dead_sessions(tmp_path / "run", "host:1") == []
    record.clear()
    record.close()
    assert list((tmp_path / "run").iterdir()) == []


def test_a_session_that_was_not_given_back_is_left_to_the_next_mount(tmp_path: Path) -> None:
    record = SessionFile(tmp_path)
    record.write("host:1", "abc")
    record.write("host:1", "de")
    record.close()
    assert dead_sessions(tmp_path, "host:1") == ["de"]
    assert list(tmp_path.iterdir()) == []


def test_an_unlocked_file_is_a_dead_mount(tmp_path: Path) -> None:
    (tmp_path / "1.session").write_text("host:1 abc\n")
    (tmp_path / "2.session").write_text("host:2 def\n")
    (tmp_path / "3.session").write_text("")
    assert dead_sessions(tmp_path, "host:1") == ["abc"]
    assert dead_sessions(tmp_path, "host:1") == []
    assert dead_sessions(tmp_path, "host:2") == ["def"]


def test_mounts_that_end_or_begin_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one has removed a file after it was found, and one after it was opened."""
    (tmp_path / "1.session").symlink_to(tmp_path / "gone")
    (tmp_path / "2.session").write_text("host:1 abc\n")
    (tmp_path / "3.session").write_text("host:1 def\n")
    flock, other = fcntl.flock, list[str]()

    def overtaken(file: IO[str], flags: int) -> None:
        if not other:
            other.append("it begins")
            other.extend(dead_sessions(tmp_path, "host:1"))
        flock(file, flags)

    monkeypatch.setattr(fcntl, "flock", overtaken)
    assert dead_sessions(tmp_path, "host:1") == []
    assert other == ["it begins", "abc", "def"]


def test_a_new_file_is_locked_though_somebody_looks_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(fcntl, "flock", lambda file, flags: asked.append(flags))
    SessionFile(tmp_path).close()
    assert asked == [fcntl.LOCK_EX]  # waits: who looks has it for a moment


def test_what_a_dead_mount_with_the_same_pid_has_left_stays(tmp_path: Path) -> None:
    (tmp_path / f"{os.getpid()}.session").write_text("host:2 abc\n")
    record = SessionFile(tmp_path)
    record.write("host:1", "def")
    record.close()
    assert dead_sessions(tmp_path, "host:2") == ["abc"]
    assert dead_sessions(tmp_path, "host:1") == ["def"]


def test_no_directory_means_no_dead_mounts(tmp_path: Path) -> None:
    assert dead_sessions(tmp_path / "none", "host:1") == []


def test_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_directory() == Path("/run/dfs")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert default_directory() == Path("/run/user/1000/dfs")
