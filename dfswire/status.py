"""What operators are shown of a cluster as a whole: servers, sessions, chunks, repair, jobs.

metad puts it together for `dfs status`, `dfs nodes` and `dfs top`.  Sizes are bytes, times are
seconds unless a name says otherwise.
"""

from __future__ import annotations

from typing import Literal

from dfswire.health import RepairStatus
from dfswire.hosts import Admin, DiskFigures, HostFigures
from dfswire.jobs import JobStatus
from dfswire.messages import Message
from dfswire.observe import Traffic


class ServerStatus(Message, frozen=True, kw_only=True):
    server_id: str
    address: str
    state: Literal["up", "suspect", "down"]
    # Seconds ago; of one that was not `heard`: how long metad has waited for it.
    last_heartbeat_s: float
    heard: bool = True  # since metad was started
    reason: str = ""  # why it is not up, where that is not only silence
    zone: str
    rack: str
    labels: list[str]
    software: str
    host: HostFigures
    disks: list[DiskFigures]
    chunks: int
    total_bytes: int
    free_bytes: int
    admin: Admin = "enabled"
    disk_admin: dict[str, Admin] = {}  # of disks that are not just enabled
    incarnation: int = 0  # how often it was started
    traffic: Traffic = Traffic()
    disk_traffic: dict[str, Traffic] = {}


class ChunkTotals(Message, frozen=True, kw_only=True):
    """Live chunks by redundancy.  `by_replicas[n]` counts chunks with n good replicas on live
    servers; `misplaced` those that have some in one failure domain of their policy (or on one
    server, or not where the label is) though there are others."""

    total: int
    bytes: int
    under_replicated: int
    lost: int
    by_replicas: list[int]
    pending_delete: int = 0
    misplaced: int = 0


class SessionStatus(Message, frozen=True, kw_only=True):
    session: str
    host: str
    mount_point: str
    pid: int
    software: str
    expires_s: float
    connected: bool


class ClusterStatus(Message, frozen=True, kw_only=True):
    cluster_id: str
    software: str
    replicas: int
    chunk_size_bytes: int
    inodes: int
    servers: list[ServerStatus]
    sessions: list[SessionStatus]
    chunks: ChunkTotals
    total_bytes: int
    free_bytes: int
    used_bytes: int
    repair: RepairStatus = RepairStatus()
    unsatisfied: list[str] = []  # what policies of directories want and the servers cannot do
    stuck: list[str] = []  # drains that cannot go on, and what they miss
    journal_copies: int = 0  # chunkds that have everything of metad's journal, and how many should
    journal_copies_wanted: int = 0
    jobs: list[JobStatus] = []  # that run
    foreign: list[str] = []  # addresses of chunkds of other clusters that want to register
    reclaim_held: str = ""  # why nothing is deleted: a restore that nobody has confirmed
