"""A daemon gets no more memory: not for buffers, and not for the stack of a thread."""

from __future__ import annotations

import contextlib
import http.client
import re
import resource
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.t5_faults.harness import FaultyCluster
from tests.t5_faults.load import Load, seen
from tests.t5_process.observed import wait_for

PAGE_BYTES = resource.getpagesize()
LEFT_BYTES = 256 << 10
CROWD_BYTES = 12 << 20
RAN_OUT = re.compile("out of memory|MemoryError|can't start new thread")
Saw = Callable[[str], None]


@contextlib.contextmanager
def cramped(pid: int) -> Iterator[None]:
    """Inside, a process may take hardly more of addresses than it has."""
    used = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * PAGE_BYTES
    before = resource.prlimit(pid, resource.RLIMIT_AS)
    resource.prlimit(pid, resource.RLIMIT_AS, (used + LEFT_BYTES, before[1]))
    try:
        yield
    finally:
        if Path(f"/proc/{pid}").exists():
            resource.prlimit(pid, resource.RLIMIT_AS, before)


def test_chunkd(cluster: FaultyCluster, load: Load, saw: Saw) -> None:
    """F32: others take what comes, and it lives."""
    pid = cluster.pid("chunkd1")
    with load.watched() as longest:
        with cramped(pid):
            load.wait_progress(5)
        started = time.monotonic()
        cluster.wait_healthy()
        load.wait_progress(2)
    assert cluster.pid("chunkd1") == pid, "it has ended"
    saw(f"{seen(longest)}; as before {time.monotonic() - started:.1f} s later")


def test_metad(cluster: FaultyCluster, load: Load, saw: Saw) -> None:
    """F32: programs wait, and nothing that was answered is lost.

    It may end, where nobody can be told that something has failed; then it is started again.
    """
    cluster.see_log("metad")
    cluster.kill("metad")  # one that has run for long has much that is free, and needs no more
    cluster.start("metad")
    cluster.wait_healthy()
    pid = cluster.pid("metad")

    def ran_out() -> bool:
        crowd(cluster.address)
        return bool(RAN_OUT.search(cluster.unseen_log("metad"))) or not alive(pid)

    with load.watched() as longest:
        with cramped(pid):
            wait_for(ran_out, "it runs out of memory")
        started, before = time.monotonic(), len(load.acknowledged())
        # It may be ending just now, and is still there for a moment.
        wait_for(
            lambda: not alive(pid) or len(load.acknowledged()) >= before + 5,
            "it goes on, or ends",
        )
        if not alive(pid):
            assert cluster.exit_status("metad") == 1
            cluster.start("metad")
        load.wait_progress(3)
    ended = "ended, was started again" if cluster.pid("metad") != pid else "lived"
    said = cluster.see_log("metad")
    assert "Traceback" not in said or RAN_OUT.search(said), said
    saw(f"{seen(longest)}; it {ended}; as before {time.monotonic() - started:.1f} s later")


def crowd(address: str) -> None:
    """A request that takes much memory to read: the small ones may find enough that is unused."""
    headers = {"Content-Type": "application/msgpack"}
    request = urllib.request.Request(
        f"http://{address}/v1/meta/lookup", bytes(CROWD_BYTES), headers, method="POST"
    )
    with contextlib.suppress(OSError, http.client.HTTPException):
        urllib.request.urlopen(request, timeout=5).close()


def alive(pid: int) -> bool:
    """Whether the process has not ended; it may be a zombie then."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
