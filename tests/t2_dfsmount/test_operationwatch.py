"""Operations of the kernel have ids, are counted, and say how they ended."""

from __future__ import annotations

import errno
import logging

import pytest
import trio
from pyfuse3 import FUSEError

from dfsmount.adapter.conversions import speaks_errno
from dfsmount.config import MountConfig, parse_options
from dfsmount.lowlevel.requests import Answered
from dfsmount.metrics import MountMetrics, check_loopback
from dfsmount.operationwatch import OperationWatch
from dfswire.daemon import REQUEST_ID
from dfswire.errors import NoEntry, UsageError
from tests.t1_wire.test_metrics import samples


class Handlers:
    """Handlers that end as they are told."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.watch = OperationWatch(lambda labels, _: self.seen.append((labels[0], labels[1])))

    @speaks_errno
    async def lookup(self, problem: BaseException | None) -> str:
        self.ids.append(REQUEST_ID.get())
        await trio.lowlevel.checkpoint()
        if problem is not None:
            raise problem
        return "found"


async def test_outcomes() -> None:
    handlers = Handlers()
    assert await handlers.lookup(None) == "found"
    for problem in (NoEntry("none"), FUSEError(errno.EXDEV), Answered("gone")):
        with pytest.raises(FUSEError):
            await handlers.lookup(problem)
    with pytest.raises(ZeroDivisionError):
        await handlers.lookup(ZeroDivisionError())
    outcomes = [outcome for _, outcome in handlers.seen]
    assert outcomes == ["ok", "ENOENT", "EXDEV", "EINTR", "cancelled"]
    assert {name for name, _ in handlers.seen} == {"lookup"}
    assert len(set(handlers.ids)) == 5, "each has its own id"
    assert len({each.partition("-")[0] for each in handlers.ids}) == 1


def test_lines_for_those_who_debug(caplog: pytest.LogCaptureFixture) -> None:
    watch = OperationWatch()
    with caplog.at_level(logging.DEBUG):
        watch.end("write", "ok", watch.begin())
    assert caplog.messages[0].startswith("write: ok in ")


async def test_metrics() -> None:
    metrics = MountMetrics()
    watch = OperationWatch(metrics.operations.add)
    watch.end("write", "ok", watch.begin())
    found = samples(await metrics.metrics.page())
    assert found["dfs_operation_duration_seconds_count", ("write", "ok")] == 1


def test_only_on_loopback() -> None:
    for address in ("127.0.0.1:1", "[::1]:1", "localhost:1", "127.1.2.3:1"):
        check_loopback(address)
    for address in ("0.0.0.0:1", "10.0.0.1:1", "[::]:1", "host:1"):
        with pytest.raises(UsageError, match="loopback"):
            check_loopback(address)


def test_options() -> None:
    config = parse_options(MountConfig("m", "/m"), "metrics_listen=127.0.0.1:9,log_format=json")
    assert (config.metrics_listen, config.log_format) == ("127.0.0.1:9", "json")
    with pytest.raises(UsageError, match="metrics_listen"):
        parse_options(MountConfig("m", "/m"), "metrics_listen")
