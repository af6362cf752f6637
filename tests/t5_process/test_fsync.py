"""What fsync promises: the bytes are on disks and in metadata on disk before it returns."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.t5_process.harness import Cluster
from tests.t5_process.observed import wait_for
from tests.t5_process.programs import Worker

SIZE_BYTES = 5 << 20  # two chunks
ROUNDS = 3
BEGUN = re.compile(
    r"(?P<task>\d+) +(?P<at>[\d.]+) f(?:data)?sync\(\d+<(?P<path>[^>]*)>[^)<]*(?P<rest>.*)"
)
RESUMED = re.compile(r"(?P<task>\d+) +[\d.]+ <\.\.\. f(?:data)?sync resumed>(?P<rest>.*)")
ENDED_WELL = re.compile(r"\) += 0 <(?P<took>[\d.]+)>")


def test_all_daemons_die_after_fsync(
    cluster: Cluster, place: Path, worker: Callable[[str, Path], Worker]
) -> None:
    """Again and again, at any moment; the application only waits."""
    writing = worker("files", place)
    for _ in range(ROUNDS):
        writing.wait_progress(5)
        cluster.kill(*cluster.chunkd_names, "metad")
        acknowledged = writing.entries()
        cluster.start("metad")
        cluster.start(*cluster.chunkd_names)
        cluster.check_files(
            {f"{place.name}/{each['name']}": each["sha256"] for each in acknowledged}
        )
    writing.wait_progress(5)
    entries = writing.finish()
    cluster.remount()
    cluster.check_files({f"{place.name}/{each['name']}": each["sha256"] for each in entries})


def test_synced_before_the_answer(cluster: Cluster, place: Path, tmp_path: Path) -> None:
    """A killed process leaves the page cache alone, so the calls themselves are looked at."""
    traces = {name: tmp_path / name for name in (*cluster.chunkd_names, "metad")}
    tracers = [trace(cluster.pid(name), output) for name, output in traces.items()]
    try:
        path = place / "file"
        started = time.time()
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
        os.write(descriptor, os.urandom(SIZE_BYTES))
        os.fsync(descriptor)
        returned = time.time()
        os.close(descriptor)
    finally:
        for tracer in tracers:
            tracer.terminate()
            tracer.wait()

    synced = {name: syncs(output, started, returned) for name, output in traces.items()}
    chunks = cluster.info(path).chunks
    assert len(chunks) == 2
    for chunk in chunks:
        text = chunk.chunk.hex()
        servers = [
            name
            for name in cluster.chunkd_names
            if any(text in each for each in synced[name])  # as temporary or under its name
            and any(each.endswith(f"/chunks/{text[:2]}/{text[2:4]}") for each in synced[name])
        ]
        assert len(servers) == 2, f"file and directory of {text} synced on {servers} only: {synced}"
    assert any(each.endswith(("metad.db-wal", "metad.db")) for each in synced["metad"])


def trace(pid: int, output: Path) -> subprocess.Popen[bytes]:
    """strace of a daemon's fsyncs; returns when all of its threads are traced."""
    words = ["strace", "-f", "-ttt", "-T", "-y", "-s", "0", "-e", "trace=fsync,fdatasync"]
    tracer = subprocess.Popen(
        [*words, "-o", str(output), "-p", str(pid)],
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )
    tasks = Path(f"/proc/{pid}/task")
    wait_for(
        lambda: all(tracer_of(task) == tracer.pid for task in tasks.iterdir()), "strace attached"
    )
    return tracer


def tracer_of(task: Path) -> int:
    """The process that traces a thread, 0 for none."""
    found = re.search(r"TracerPid:\s+(\d+)", (task / "status").read_text())
    return int(found[1]) if found else 0


def syncs(output: Path, after: float, before: float) -> list[str]:
    """The paths whose fsync began and ended well between two points in time.

    Of two threads at once each has its line in two parts.
    """
    found = []
    under_way: dict[str, tuple[float, str]] = {}
    for line in output.read_text().splitlines():
        if begun := BEGUN.match(line):
            under_way[begun["task"]] = float(begun["at"]), begun["path"]
        part = begun or RESUMED.match(line)
        if part and (ended := ENDED_WELL.match(part["rest"])):
            start, path = under_way.pop(part["task"])
            if after <= start and start + float(ended["took"]) <= before:
                found.append(path)
    return found
