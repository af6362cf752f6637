"""A chunkd that is not dead but does not answer (SIGSTOP) stops nobody else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.t5_process.harness import Cluster
from tests.t5_process.programs import Worker
from tests.t5_process.workload import numbers

NUMBERS = 8 * 512 * 1024  # 32 MiB: eight chunks, so that every server has some
LONGEST_S = 25.0  # one write may have to run into the deadlines of a chain and of a direct attempt


def test_stopped_chunkd(
    cluster: Cluster, place: Path, worker: Callable[[str, Path], Worker]
) -> None:
    (place / "numbers").write_bytes(numbers(0, NUMBERS))
    cluster.remount("cache_mib=2")  # the numbers are read from the servers, again and again
    workers = [worker(kind, place) for kind in ("files", "reads")]
    for each in workers:
        each.wait_progress(5)
    with cluster.stopped("chunkd2"):
        for each in workers:
            each.wait_progress(30)
    written, read = (each.finish() for each in workers)
    slowest_s = max(entry["took_s"] for entry in written + read)
    assert slowest_s < LONGEST_S, f"one operation took {slowest_s:.1f} s"
    cluster.remount()
    cluster.check_files({f"{place.name}/{entry['name']}": entry["sha256"] for entry in written})
