"""How servers are seen by those who call them, and how far repair is.

Clients tell metad with the renewal of their sessions, and chunkds with their heartbeats, what they
experienced with each chunkd since they told it last; metad/hosts/grayness.py weighs it.  A
heartbeat can be in time while nobody else is served: only those who want something notice.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from dfswire.messages import Message, Natural

EXPERIENCES_MAX = 64  # servers in one report; the worst ones if there are more


class Experience(Message, frozen=True, kw_only=True):
    """What somebody met at a server since the last report.

    Of `calls`, `failed` got no answer in time, and `slow` took many times as long as the same from
    other servers did.
    """

    address: str
    calls: Natural
    failed: Natural = 0
    slow: Natural = 0


Experiences = Annotated[list[Experience], msgspec.Meta(max_length=EXPERIENCES_MAX)]


class RepairStatus(Message, frozen=True, kw_only=True):
    """`chunks` have too few good replicas on living disks and can be repaired, which needs copies
    of `bytes_left`; `running` are ordered.  `bytes_per_s` is of the last half minute; `eta_s` is
    None while that is 0.  `excess` copies are too many and on their way out."""

    chunks: Natural = 0
    running: Natural = 0
    bytes_left: Natural = 0
    bytes_per_s: float = 0.0
    eta_s: float | None = None
    excess: Natural = 0
