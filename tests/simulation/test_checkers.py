"""The checkers tell histories that can be from others, and disks forget what they may forget."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from chunkd.store import ChunkStore
from dfswire.chunks import block_checksums
from dfswire.errors import DiskFailed, NoSpace
from tests.simulation import linear
from tests.simulation.cluster import Cluster, Machine, Process, Shape
from tests.simulation.disk import ROOT, Crash, SimulatedDisk
from tests.simulation.history import Change, Counter, FileHistory, Log, Violation, pattern
from tests.simulation.linear import NameOperation
from tests.simulation.oracle import TELLS_S, Oracle
from tests.simulation.schedule import CELL_BYTES, Schedule, draw
from tests.simulation.shrink import shrink

CHUNK = bytes(range(16))


# -- names


def op(kind: str, began: int, ended: int, answer: object, **more: int) -> NameOperation:
    names: dict[str, Any] = {"name": 0, "other": 0} | more
    return NameOperation(0, kind, began=began, ended=ended, answer=answer, **names)


def create(began: int, ended: int, answer: object, inode: int = 7) -> NameOperation:
    return op("create", began, ended, answer, inode=inode)


@pytest.mark.parametrize(
    "history",
    [
        [create(1, 2, "ok"), op("look", 3, 4, 7)],
        [create(1, 4, "ok"), op("look", 2, 3, 0)],  # at the same time: before or after
        [create(1, 4, "ok"), op("look", 2, 3, 7)],
        [create(1, 9, None, 0), op("look", 2, 3, 7), op("look", 4, 5, 7)],  # unanswered: happened
        [create(1, 9, None, 0), op("look", 2, 3, 0)],  # or not
        [create(1, 2, "ok"), op("rename", 3, 4, "ok", other=1), op("list", 5, 6, (0, 7))],
        [create(1, 2, "ok"), op("link", 3, 4, "ok", other=1, inode=7), op("list", 5, 6, (7, 7))],
        [create(1, 2, "ok"), op("unlink", 3, 6, "ok"), create(4, 5, "ok", 8), op("look", 7, 8, 8)],
    ],
)
def test_what_can_be_is_accepted(history: list[NameOperation]) -> None:
    linear.check(history, 2)


@pytest.mark.parametrize(
    "history",
    [
        [create(1, 2, "ok"), op("look", 3, 4, 0)],  # a stale answer
        [create(1, 2, "ok"), op("unlink", 3, 4, "ok"), op("look", 5, 6, 7)],  # it comes back
        [create(1, 2, "ok"), create(3, 4, "ok", 8)],  # two winners
        [create(1, 2, "exists")],  # executed twice
        [create(1, 2, "ok"), op("unlink", 3, 4, "missing")],
        [create(1, 9, "ok"), op("look", 2, 3, 7), op("look", 4, 5, 0)],  # seen, then not
        [create(1, 9, None, 0), op("look", 2, 3, 7), op("look", 4, 5, 8)],
        [create(1, 2, "ok"), op("rename", 3, 4, "ok", other=1), op("list", 5, 6, (7, 7))],
    ],
)
def test_what_cannot_be_is_a_violation(history: list[NameOperation]) -> None:
    with pytest.raises(Violation, match="I3"):
        linear.check(history, 2)


# -- files


def changed(value: int | None, began: int, ended: int, *, done: bool = True) -> Change:
    return Change({0: value}, began, ended, done=done, synced=done)


def file_with(*changes: Change) -> FileHistory:
    history = FileHistory("f")
    history.changes += changes
    return history


def test_a_reader_finds_the_last_write_or_one_under_way() -> None:
    history = file_with(changed(1, 1, 2), changed(2, 5, 8))
    assert history.legal(0, 3, 4) == {1}
    assert history.legal(0, 3, 6) == {1, 2}
    assert history.legal(0, 9, 10) == {2}


def test_a_write_of_which_nobody_knows_may_be_there_until_the_next() -> None:
    history = file_with(changed(1, 1, 2), changed(2, 3, 4, done=False), changed(3, 7, 8))
    assert history.legal(0, 5, 6) == {1, 2}
    assert history.legal(0, 9, 10) == {3}
    assert not file_with(changed(1, 1, 2, done=False)).is_certain(0)


@pytest.mark.parametrize(
    ("data", "invariant"),
    [
        (bytes(CELL_BYTES), "I1"),
        (b"", "I1"),
        (pattern("f", 1, 0), "I2"),  # an old version
        (pattern("f", 2, 1), "I2"),  # another place
        (pattern("g", 2, 0), "I2"),  # another file
        (pattern("f", 2, 0)[:-1] + b"?", "I2"),
    ],
)
def test_wrong_bytes_are_a_violation(data: bytes, invariant: str) -> None:
    history = file_with(changed(1, 1, 2), changed(2, 3, 4))
    history.check(0, pattern("f", 2, 0), 5, 6)
    with pytest.raises(Violation, match=invariant):
        history.check(0, data, 5, 6)


def test_records_are_there_once() -> None:
    log = Log(attempted={b"a", b"b"})
    log.check([b"a"], {b"a"})
    log.check([b"b", b"a"], {b"a"})
    for invariant, records in {"I1": [b"b"], "I7": [b"a", b"a"], "I2": [b"a", b"c"]}.items():
        with pytest.raises(Violation, match=invariant):
            log.check(records, {b"a"})


def test_increments_are_neither_lost_nor_doubled() -> None:
    Counter(acknowledged=2, attempted=3).check(3)
    for value in (1, 4):
        with pytest.raises(Violation, match="I8"):
            Counter(acknowledged=2, attempted=3).check(value)


# -- the disk


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk("d", lambda: 1000.0, random.Random(1))


def opened(disk: SimulatedDisk) -> ChunkStore:
    disk.start()
    store = ChunkStore(ROOT, "d", files=disk, wall=lambda: 1000.0, monotonic=lambda: 0.0)
    store.recover()
    return store


def put(store: ChunkStore, chunk: bytes, *, durable: bool) -> None:
    data = bytes(5000)
    store.write(chunk, data, block_checksums(chunk, data), durable)


def test_a_durable_chunk_survives_power_cuts(disk: SimulatedDisk) -> None:
    put(opened(disk), CHUNK, durable=True)
    assert disk.holds(CHUNK, durable=True)
    for _ in range(20):
        disk.power_cut()
        assert opened(disk).verify(CHUNK) == 5000


def test_a_chunk_that_was_not_synced_may_be_lost(
    disk: SimulatedDisk, tolerate_log: Callable[[str], None]
) -> None:
    tolerate_log("is bad")
    left = 0
    for number in range(40):
        chunk = number.to_bytes(16, "big")
        put(opened(disk), chunk, durable=False)
        assert disk.holds(chunk, durable=False) and not disk.holds(chunk, durable=True)
        disk.power_cut()
        left += disk.holds(chunk, durable=True)
    assert 0 < left < 40


@pytest.mark.parametrize("step", range(12))
def test_the_power_can_go_in_any_system_call(
    disk: SimulatedDisk, step: int, tolerate_log: Callable[[str], None]
) -> None:
    tolerate_log("is bad")
    store = opened(disk)
    disk.crash_in = step
    try:
        put(store, CHUNK, durable=True)
    except Crash:
        with pytest.raises(Crash):
            disk.fsync_directory(ROOT)
    disk.power_cut()
    assert opened(disk).list_chunks(b"", 9) in ([], [CHUNK])


def test_errors_are_those_of_a_disk(
    disk: SimulatedDisk, tolerate_log: Callable[[str], None]
) -> None:
    tolerate_log("bad")
    store = opened(disk)
    disk.full = True
    with pytest.raises(NoSpace):
        put(store, CHUNK, durable=True)
    disk.full, disk.failing = False, {"fsync": 1}
    with pytest.raises(DiskFailed):
        put(store, CHUNK, durable=True)


def test_after_a_failed_fsync_another_one_succeeds_without_the_data(disk: SimulatedDisk) -> None:
    fd = disk.open(ROOT / "file", os.O_CREAT | os.O_WRONLY)
    disk.write(fd, [b"data"])
    disk.failing["fsync"] = 1
    with pytest.raises(OSError, match="injected"):
        disk.fsync(fd)
    disk.fsync(fd)
    disk.fsync_directory(ROOT)
    disk.power_cut()
    assert disk.read_text(ROOT / "file") == ""


# -- evidence


class _EvidenceOracle(Oracle):
    """For one machine, with metad saying that each chunk is in use."""

    def __init__(self, machine: Machine) -> None:
        database = SimpleNamespace(read=lambda *_: [(1,)], is_busy=False)
        cluster = SimpleNamespace(machines=[machine], shape=Shape(), database=database, metad=1)
        super().__init__(cast(Cluster, cluster), calm=True)


def test_a_damaged_copy_that_is_deleted_is_noticed(
    disk: SimulatedDisk, tolerate_log: Callable[[str], None]
) -> None:
    tolerate_log("is bad")
    store, machine = opened(disk), Machine(0, disk)
    oracle = _EvidenceOracle(machine)
    put(store, CHUNK, durable=True)
    disk.rewrite(CHUNK, b"damaged")
    oracle.spoilt.append((0, CHUNK))
    oracle.check_evidence()
    store.delete(CHUNK)
    with pytest.raises(Violation, match="I2"):
        oracle.check_evidence()


def test_only_a_damaged_copy_may_vanish_with_its_evidence(disk: SimulatedDisk) -> None:
    store, machine = opened(disk), Machine(0, disk)
    oracle = _EvidenceOracle(machine)
    put(store, CHUNK, durable=True)
    oracle.spoilt.append((0, CHUNK))  # and set aside since, and lost, and repaired
    oracle.vanishes(machine, CHUNK)
    assert oracle.spoilt
    disk.rewrite(CHUNK, b"damaged")
    oracle.vanishes(machine, CHUNK)
    disk.vanish(CHUNK)
    oracle.check_evidence()
    assert not oracle.spoilt


@pytest.mark.parametrize("taken", [True, False])
async def test_what_the_nemesis_takes_away_is_no_finding_of_a_server(
    disk: SimulatedDisk, autojump_clock: MockClock, taken: bool
) -> None:
    """Set aside and repaired between two looks, and then it vanishes: an inventory will tell."""
    store, machine = opened(disk), Machine(0, disk)
    machine.process = Process()
    oracle = _EvidenceOracle(machine)
    oracle.spoilt.append((0, CHUNK))
    oracle.check_findings()
    if taken:
        put(store, CHUNK, durable=True)
        oracle.vanishes(machine, CHUNK)
        disk.vanish(CHUNK)
    await trio.sleep(2 * TELLS_S)
    with nullcontext() if taken else pytest.raises(Violation, match="is bad"):
        oracle.check_findings()


# -- shrinking


def test_shrinking_leaves_what_is_needed() -> None:
    schedule = replace(draw(4), soft=())
    steps = {step.number for work in schedule.steps for step in work}
    needed_step, needed_fault = sorted(steps)[3], schedule.faults[-1].number

    def fails(smaller: Schedule) -> bool:
        left = {step.number for work in smaller.steps for step in work}
        return needed_step in left and needed_fault in {each.number for each in smaller.faults}

    out = shrink(schedule, fails)
    assert {number for kind, number in out if kind == "step"} == steps - {needed_step}
    assert len([kind for kind, _ in out if kind == "fault"]) == len(schedule.faults) - 1
