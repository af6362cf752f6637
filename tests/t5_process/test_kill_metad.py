"""metad is killed under load and started again: calls wait, go on, and happened exactly once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.t5_process.harness import Cluster
from tests.t5_process.observed import sha256_of
from tests.t5_process.programs import Worker, copying
from tests.t5_process.workload import numbers

KILLS = 3
AWAY_S = 1.0
NAMERS = 3  # so that nearly every kill finds a change that is committed and not yet answered
NUMBERS = 512 * 1024  # 4 MiB: one chunk and a bit of read-ahead


def test_kill_metad(
    cluster: Cluster, place: Path, large_file: Path, worker: Callable[[str, Path], Worker]
) -> None:
    (place / "numbers").write_bytes(numbers(0, NUMBERS))
    homes = [place / f"home-{number}" for number in range(NAMERS)]
    for home in homes:
        home.mkdir()
    namers = [worker("names", home) for home in homes]
    workers = [*namers, worker("files", place), worker("reads", place)]
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
    named = [each.finish() for each in namers]
    written, read = (each.finish() for each in workers[NAMERS:])

    assert sha256_of(place / "large") == sha256_of(large_file)
    cluster.remount()
    cluster.check_files({f"{place.name}/{entry['name']}": entry["sha256"] for entry in written})
    for home, entries in zip(homes, named, strict=True):
        check_home(cluster, home, entries)
    # Every worker ended between two rounds: what it recorded is all that may be there.
    expected = {entry["name"] for entry in written} | {home.name for home in homes}
    assert {path.name for path in place.iterdir()} == expected | {"large", "numbers"}
    slowest_s = max(entry["took_s"] for entries in [*named, written, read] for entry in entries)
    assert slowest_s < AWAY_S + 10, f"{slowest_s:.1f} s for one round"


def check_home(cluster: Cluster, home: Path, entries: list[dict[str, Any]]) -> None:
    """Everything that one worker named is there, once, and nothing else."""
    prefix = home.relative_to(cluster.mount_point)
    cluster.check_files({f"{prefix}/{entry['name']}": entry["sha256"] for entry in entries})
    rounds = {str(Path(entry["name"]).parent) for entry in entries}
    assert {path.name for path in home.iterdir()} == rounds
    for name in rounds:
        assert [path.name for path in (home / name).iterdir()] == ["final"]
        assert (home / name / "final").stat().st_nlink == 1
