"""Which files of the journal stay: every moment of the last time can be restored from them."""

from __future__ import annotations

import itertools

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from chunkd.retention import KeptSegment, KeptSnapshot, retained, run_of
from dfswire.journal import Position
from dfswire.journalfile import SegmentHeader
from tests.t2_chunkd.journals import CLUSTER, START, snapshot_of

SECOND_NS = 10**9
KEPT_S = 100.0


def snapshot(name: int, epoch: int, number: int, at_s: float) -> KeptSnapshot:
    position = msgspec.structs.replace(
        START, epoch=epoch, number=number, time_ns=int(at_s * SECOND_NS)
    )
    return KeptSnapshot(f"{name:08}.snapshot", snapshot_of(position))


def segment(name: int, base: Position, run: int) -> KeptSegment:
    return KeptSegment(f"{name:08}.journal", SegmentHeader(cluster_id=CLUSTER, base=base, run=run))


def test_the_first_snapshot_of_an_epoch_stays() -> None:
    """The entries of an epoch cannot be replayed on a snapshot of an earlier one."""
    snapshots = [
        snapshot(0, 1, 4, 10),
        snapshot(1, 1, 100, 20),
        snapshot(2, 2, 60, 15),
        snapshot(3, 2, 80, 30),
        snapshot(4, 2, 90, 35),
        snapshot(5, 2, 95, 40),
    ]
    names = [int(each.name[:8]) for each in retained(snapshots, [], 41 * SECOND_NS, KEPT_S)]
    assert names == [0, 2, 4, 5]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["same", "same", "same", "run", "epoch"]), st.floats(1, 60)),
        min_size=1,
        max_size=25,
    )
)
def test_each_moment_can_be_restored(steps: list[tuple[str, float]]) -> None:
    """A moment that could be restored still can, for as long as promised."""
    kept: list[KeptSnapshot] = []
    segments = [segment(0, START, 0)]
    made: list[KeptSnapshot] = []
    epoch, number, run, now_s = 1, 0, 0, 0.0
    for name, (what, pause_s) in enumerate(steps, start=1):
        now_s += pause_s
        number += 10
        if what != "same":
            epoch += what == "epoch"
            run = number
            base = msgspec.structs.replace(START, epoch=epoch, number=number)
            segments.append(segment(2 * name, base, run))
        fresh = snapshot(2 * name + 1, epoch, number, now_s)
        made.append(fresh)
        kept = retained([*kept, fresh], segments, int(now_s * SECOND_NS), KEPT_S)
        for old, after in itertools.pairwise(made):
            if after.snapshot.position.time_ns > (now_s - KEPT_S) * SECOND_NS:
                assert any(
                    run_of(each, segments) == run_of(old, segments)
                    and each.snapshot.position.number <= old.snapshot.position.number
                    for each in kept
                )
    assert kept[-2:] == made[-2:]


def test_not_all_of_them_stay() -> None:
    """With one a second there is room for the work, too."""
    kept: list[KeptSnapshot] = []
    for second in range(1, 500):
        fresh = snapshot(second, 1, second, second)
        kept = retained([*kept, fresh], [], second * SECOND_NS, KEPT_S)
        assert len(kept) <= 8
