"""What a rebalancing would do: messages of cluster.rebalance_plan."""

from __future__ import annotations

from dfswire.messages import ChunkId, Message, Natural


class RebalanceRequest(Message, frozen=True, kw_only=True):
    """Nothing is moved for it."""


class PlannedMove(Message, frozen=True, kw_only=True):
    """A copy that would go from one disk to another."""

    chunk: ChunkId
    bytes: Natural
    source: str
    destination: str


class DiskPlan(Message, frozen=True, kw_only=True):
    """How full a disk is, and would be: fractions of its size."""

    disk: str
    before: float
    after: float


class RebalancePlan(Message, frozen=True, kw_only=True):
    """`described` are the first moves; `complete` is False when there are more than was planned."""

    moves: Natural
    bytes: Natural
    described: list[PlannedMove]
    disks: list[DiskPlan]
    complete: bool = True
