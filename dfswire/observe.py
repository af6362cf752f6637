"""What operators ask about the past and the present of a cluster: events, traffic.

An event is something that happened to the cluster and that its operator should be told, such as a
server that went down.  metad numbers them; whoever follows asks for those after a number.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from dfswire.messages import Message, Natural

EVENTS_MAX = 1000  # in one reply
EVENTS_WAIT_MAX_S = 30.0

Severity = Literal["info", "warning", "error", "critical"]


class Traffic(Message, frozen=True, kw_only=True):
    """What is read from disks and written to them, of late."""

    read_bytes_per_s: float = 0.0
    written_bytes_per_s: float = 0.0
    reads_per_s: float = 0.0
    writes_per_s: float = 0.0


class ClusterEvent(Message, frozen=True, kw_only=True):
    """One event, or several of the same kind that came close together (`times`): then time and
    message are those of the last."""

    number: Natural
    time_ns: int  # since the epoch, by metad's clock
    kind: str
    severity: Severity
    subject: str
    message: str
    times: int = 1


class EventsRequest(Message, frozen=True, kw_only=True):
    """Events with numbers above `after`, of these kinds ("server" includes "server.down"; none:
    all), not before `since_ns`.

    At most `limit`: the oldest, or with `newest` the newest.  When there are none, the answer waits
    for one, up to `wait_s` (at most EVENTS_WAIT_MAX_S).
    """

    after: Natural = 0
    since_ns: int = 0
    kinds: list[str] = []
    limit: Annotated[int, msgspec.Meta(ge=1, le=EVENTS_MAX)] = EVENTS_MAX
    newest: bool = False
    wait_s: float = 0.0


class EventsReply(Message, frozen=True, kw_only=True):
    """Events in order; to go on, ask for those after `next_after`.  `first` is the oldest number
    that is kept (0: none), `last` the newest."""

    events: list[ClusterEvent]
    first: Natural
    last: Natural
    next_after: Natural
