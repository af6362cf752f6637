"""Heartbeats: a chunkd's sign of life, which carries figures, reports and results, and its answer.

A chunkd sends one after the other; metad answers each with what is to be done.  Reports and
results are sent again until a heartbeat with them was answered.
"""

from __future__ import annotations

from typing import Literal

from dfswire.health import Experiences
from dfswire.hosts import DiskFigures, HostFigures, TokenKey
from dfswire.messages import ChunkId, Message, Natural
from dfswire.orders import Order, OrderResult


class ReplicaReport(Message, frozen=True, kw_only=True):
    """A change that metad did not order: a replica found bad, lost, or found good again."""

    chunk: ChunkId
    disk: str
    state: Literal["bad", "missing", "good"]
    reason: str = ""


class Heartbeat(Message, frozen=True, kw_only=True):
    """`token_key`: the id of the newest key of tokens that it has."""

    server_id: str
    incarnation: int
    host: HostFigures
    disks: list[DiskFigures]
    reports: list[ReplicaReport] = []
    results: list[OrderResult] = []
    process: str = ""
    peers: Experiences = []
    token_key: Natural = 0


class HeartbeatReply(Message, frozen=True, kw_only=True):
    """`register`: metad does not know this incarnation; register again.  `called_off`: orders that
    need not be carried out any more; each of them gets a result all the same.  `inventory`: send
    one of every disk now.  `token_key`: one more, to be used when a heartbeat has named it."""

    orders: list[Order] = []
    register: bool = False
    inventory: bool = False
    called_off: list[int] = []
    token_key: TokenKey | None = None
