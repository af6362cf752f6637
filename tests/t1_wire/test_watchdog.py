"""Signs of life for systemd."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from dfswire import watchdog
from dfswire.errors import UsageError


def test_how_often() -> None:
    assert watchdog.interval_s({}, 7) is None
    assert watchdog.interval_s({"WATCHDOG_USEC": "30000000"}, 7) == 10
    assert watchdog.interval_s({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 7) == 10
    assert watchdog.interval_s({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, 7) is None


@pytest.mark.parametrize("text", ["0", "-3", "soon", "1.5"])
def test_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="WATCHDOG_USEC"):
        watchdog.interval_s({"WATCHDOG_USEC": text}, 7)


async def test_signs_while_the_loop_turns(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "3000000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        with trio.move_on_after(4.5):
            await watchdog.run_forever()
        signs = [systemd.recv(100) for _second in range(5)]
        assert signs == [b"WATCHDOG=1"] * 5
        with pytest.raises(BlockingIOError):
            systemd.recv(100)


async def test_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    with trio.fail_after(1):
        await watchdog.run_forever()
