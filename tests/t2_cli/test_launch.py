"""Starting a process and learning whether it is ready."""

from __future__ import annotations

import sys
from pathlib import Path

from dfsmount.cli.launch import Launch
from dfsmount.cli.processes import stop

SAY = """
import os, signal, socket, sys
def say(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(text, os.environ["NOTIFY_SOCKET"])
"""


def python(text: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", SAY + text]


def test_ready(tmp_path: Path) -> None:
    command = python(r'say(b"STATUS=soon"); say(b"STATUS=now\nREADY=1"); signal.pause()')
    with Launch(command, tmp_path / "new" / "x.log") as launch:
        assert launch.wait_ready(30) == ""
        identity = launch.identity("/mnt")
    assert identity is not None
    assert identity.mount_point == "/mnt"
    assert stop(identity, grace_s=10) == ["stopped"]
    assert launch.process.wait() == -15


def test_one_that_ends_is_quoted_with_its_last_line(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("an older start: all well\n")
    with Launch(python('print("first"); print("port in use\\n"); sys.exit(2)'), log) as launch:
        assert launch.wait_ready(30) == "port in use"
        assert launch.identity() is None
    assert launch.process.returncode == 2
    assert log.read_text().startswith("an older start")


def test_one_that_ends_silently(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("an older start: all well\n")
    with Launch(python("sys.exit(3)"), log) as launch:
        assert launch.wait_ready(30) == "ended with status 3, silently"


def test_one_that_is_never_ready_is_ended(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    with Launch(python("signal.pause()"), log) as launch:
        assert launch.wait_ready(0.05) == f"not ready after 0.05 s, ended; see {log}"
    assert launch.process.returncode == -15
