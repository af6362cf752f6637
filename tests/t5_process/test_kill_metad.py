"""metad is killed under load and started again: calls wait, go on, and happened exactly once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.t5_process.harness import Cluster
from tests.t5_process.observed import sha256_of
from tests.t5_process.programs import Worker, copying
from tests.t5_process.workload import numbers

KILLS = 2
AWAY_S = 1.5
NUMBERS = 512 * 1024  # 4 MiB: one chunk and a bit of read-ahead


def test_kill_metad(
    cluster: Cluster, place: Path, large_file: Path, worker: Callable[[str, Path], Worker]
) -> None:
    (place / "numbers").write_bytes(numbers(0, NUMBERS))
    workers = [worker(kind, place) for kind in ("names", "files", "reads")]
    with copying(large_file, place / "large") as copy:
        for _ in range(KILLS):
            for each in workers:
                each.wait_progress(5)
            cluster.kill("metad")
            time.sleep(AWAY_S)  # the fault itself: how long it is away
            cluster.start("metad")
        for each in workers:
            each.wait_progress(5)
        assert copy.wait(60) == 0
    named, written, _ = (each.finish() for each in workers)

    assert sha256_of(place / "large") == sha256_of(large_file)
    cluster.remount()
    cluster.check_files(
        {f"{place.name}/{entry['name']}": entry["sha256"] for entry in named + written}
    )
    # Every worker ended between two rounds: what it recorded is all that may be there.
    homes = {str(Path(entry["name"]).parent) for entry in named}
    files = {entry["name"] for entry in written}
    assert {path.name for path in place.iterdir()} == homes | files | {"large", "numbers"}
    for home in homes:
        assert [path.name for path in (place / home).iterdir()] == ["final"]
        assert (place / home / "final").stat().st_nlink == 1
    slowest_s = max(entry["took_s"] for entry in named + written)
    assert slowest_s < AWAY_S + 10, f"{slowest_s:.1f} s for one round"
