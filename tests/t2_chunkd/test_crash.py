"""A crash or a power cut between any two steps leaves old or new, and keeps every promise.

Each history is run once to count its steps, then once for every step, dying there.  Afterwards the
process starts again on the same directory, with or without a power cut in between.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from chunkd.identity import claim
from chunkd.store import ChunkStore
from dfswire.errors import CorruptChunk, UnknownChunk
from tests.suites.chunkstore import A, B, content, get, put
from tests.t2_chunkd.lossyfiles import Crash, LossyFiles

History = Callable[[ChunkStore, list[bytes]], None]


def write_durably(store: ChunkStore, promised: list[bytes]) -> None:
    for chunk in (A, B):
        put(store, chunk, content(70_000), durable=True)
        promised.append(chunk)


def write_then_sync(store: ChunkStore, promised: list[bytes]) -> None:
    put(store, A, content(70_000))
    put(store, B, content(70_000))
    assert store.sync([A, B]).failed == []
    promised += [A, B]


def write_then_repeat_durably(store: ChunkStore, promised: list[bytes]) -> None:
    put(store, A, content(70_000))
    put(store, A, content(70_000), durable=True)
    promised.append(A)


def write_carelessly(store: ChunkStore, promised: list[bytes]) -> None:
    put(store, A, content(9))


HISTORIES = [write_durably, write_then_sync, write_then_repeat_durably]


def run(root: Path, history: History, crash_at: int | None) -> tuple[LossyFiles, list[bytes]]:
    """Until the end or the crash; the file system, and the chunks promised to be durable."""
    files = LossyFiles(root)
    store = ChunkStore(root, "disk", files=files)
    store.recover()
    files.steps.clear()
    files.crash_at = crash_at
    promised: list[bytes] = []
    try:
        history(store, promised)
    except Crash:
        assert crash_at is not None
    store.close()
    return files, promised


def reopen(root: Path) -> ChunkStore:
    store = ChunkStore(root, "disk")
    store.recover()
    return store


def steps_of(tmp_path: Path, history: History) -> int:
    root = tmp_path / "count"
    root.mkdir()
    return len(run(root, history, None)[0].steps)


@pytest.mark.parametrize("history", HISTORIES)
def test_a_crash_of_the_process_leaves_whole_chunks_or_none(
    tmp_path: Path, history: History
) -> None:
    steps = steps_of(tmp_path, history)
    assert steps >= 8
    for step in range(steps):
        root = tmp_path / f"{step}"
        root.mkdir()
        _, promised = run(root, history, step)
        store = reopen(root)
        present = store.list_chunks(b"", 9)
        assert set(promised) <= set(present)
        for chunk in present:
            assert get(store, chunk, 0, 70_000) == content(70_000)
        files = [path.name for path in (root / "chunks").rglob("*") if path.is_file()]
        assert sorted(files) == [chunk.hex() for chunk in present]


@pytest.mark.parametrize("history", HISTORIES)
def test_a_power_cut_loses_nothing_promised_and_invents_nothing(
    tmp_path: Path, history: History, rng: random.Random, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "chunkd.chunknames")  # torn files that nobody was promised
    for step in [*range(steps_of(tmp_path, history)), None]:
        for attempt in range(6):
            root = tmp_path / f"{step}.{attempt}"
            root.mkdir()
            files, promised = run(root, history, step)
            files.power_cut(rng)
            check_after_power_cut(reopen(root), promised)


def check_after_power_cut(store: ChunkStore, promised: list[bytes]) -> None:
    for chunk in (A, B):
        try:
            data = get(store, chunk, 0, 70_000)
        except (UnknownChunk, CorruptChunk):
            assert chunk not in promised
        else:
            assert data == content(70_000)
    for chunk in (A, B):
        put(
            store, chunk, content(70_000), durable=True
        )  # whatever is left does not stand in the way
        assert get(store, chunk, 0, 70_000) == content(70_000)


def test_the_harness_would_notice_a_missing_fsync(
    tmp_path: Path, rng: random.Random, caplog: pytest.LogCaptureFixture
) -> None:
    """Without fsync the same check fails: the power cut is no placebo."""
    caplog.set_level(logging.ERROR, "chunkd.chunknames")
    lost = 0
    for attempt in range(20):
        root = tmp_path / f"{attempt}"
        root.mkdir()
        files, _ = run(root, write_carelessly, None)
        files.power_cut(rng)
        lost += not reopen(root).list_chunks(b"", 9)
    assert lost


def test_a_crash_while_the_identity_is_written_leaves_the_old_one_or_the_new(
    tmp_path: Path, rng: random.Random
) -> None:
    for step in range(10):
        root = tmp_path / f"{step}"
        first = claim([root])
        first.release()
        files = LossyFiles(root, crash_at=step)
        with_crash = True
        try:
            claim([root], files=files).release()
            with_crash = False
        except Crash:
            pass
        second = claim([root])
        assert (second.server_id, second.disks) == (first.server_id, first.disks)
        assert second.incarnation >= first.incarnation + (1 if with_crash else 2)
        second.release()
