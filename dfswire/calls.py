"""The table of remote calls: the only list of what crosses the network.

Client, server, access checks, documentation and fault injection all read it.  A call has a name,
the service that answers, an HTTP method and path, a request and a reply type, and says whether raw
octets travel along and whether it may be repeated without asking (`idempotent`).

A request is a message in the body (MessagePack, or JSON by Content-Type), or, where `request_body`
is set, in the header `DFS-Message` with the octets as body.  Likewise for replies and `reply_body`.
An error is a `Fault` with status 4xx or 5xx.  `stream` replies are a sequence of frames, each a
4-byte big-endian length and a MessagePack message, until the connection ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dfswire import admin, chunks, cluster, jobs, locks, metadata, observe, operations, verify
from dfswire.messages import Empty, Event

MESSAGE_HEADER = "DFS-Message"
VERSION_HEADER = "DFS-Version"  # the protocol version of the caller
REQUEST_ID_HEADER = "DFS-Request-Id"
DEADLINE_HEADER = "DFS-Deadline-S"  # seconds that the caller will still wait


@dataclass(frozen=True)
class Call:
    """One remote call; see the module's text."""

    name: str
    service: str
    method: str
    path: str
    request: Any
    reply: Any
    callers: tuple[str, ...]  # who may: "client", "chunkd", "operator"
    idempotent: bool = True
    request_body: bool = False
    reply_body: bool = False
    stream: bool = False


_OPERATOR = ("operator",)
_ALL = (
    # every daemon
    Call(
        "metad.hello",
        "metad",
        "GET",
        "/v1/hello",
        Empty,
        cluster.Hello,
        ("client", "chunkd", "operator"),
    ),
    Call(
        "chunkd.hello",
        "chunkd",
        "GET",
        "/v1/hello",
        Empty,
        cluster.Hello,
        ("client", "chunkd", "operator"),
    ),
    # client -> metad: sessions
    Call(
        "session.open",
        "metad",
        "POST",
        "/v1/session/open",
        metadata.OpenSession,
        metadata.SessionGrant,
        ("client",),
        idempotent=False,
    ),
    Call(
        "session.renew",
        "metad",
        "POST",
        "/v1/session/renew",
        metadata.RenewSession,
        Empty,
        ("client",),
    ),
    Call(
        "session.close",
        "metad",
        "POST",
        "/v1/session/close",
        metadata.SessionRequest,
        Empty,
        ("client",),
    ),
    Call(
        "session.events",
        "metad",
        "POST",
        "/v1/session/events",
        metadata.FollowEvents,
        Event,
        ("client",),
        idempotent=False,
        stream=True,
    ),
    Call("session.ack", "metad", "POST", "/v1/session/ack", metadata.AckEvents, Empty, ("client",)),
    Call(
        "lease.take",
        "metad",
        "POST",
        "/v1/lease/take",
        metadata.LeaseRequest,
        metadata.LeaseReply,
        ("client",),
    ),
    Call(
        "lease.give_back",
        "metad",
        "POST",
        "/v1/lease/give_back",
        metadata.GiveBack,
        Empty,
        ("client",),
    ),
    # client -> metad: names and files
    Call(
        "meta.batch",
        "metad",
        "POST",
        "/v1/meta/batch",
        operations.Batch,
        operations.BatchReply,
        ("client",),
    ),
    Call(
        "meta.lookup",
        "metad",
        "POST",
        "/v1/meta/lookup",
        metadata.LookupRequest,
        metadata.LookupReply,
        ("client",),
    ),
    Call(
        "meta.getattr",
        "metad",
        "POST",
        "/v1/meta/getattr",
        metadata.InodeRequest,
        metadata.AttrReply,
        ("client",),
    ),
    Call(
        "meta.readlink",
        "metad",
        "POST",
        "/v1/meta/readlink",
        metadata.InodeRequest,
        metadata.ReadlinkReply,
        ("client",),
    ),
    Call(
        "meta.xattrs",
        "metad",
        "POST",
        "/v1/meta/xattrs",
        metadata.InodeRequest,
        metadata.XattrsReply,
        ("client",),
    ),
    Call(
        "meta.readdir",
        "metad",
        "POST",
        "/v1/meta/readdir",
        metadata.ReaddirRequest,
        metadata.ReaddirReply,
        ("client",),
    ),
    Call(
        "meta.layout",
        "metad",
        "POST",
        "/v1/meta/layout",
        metadata.LayoutRequest,
        metadata.LayoutReply,
        ("client",),
    ),
    Call(
        "meta.seek",
        "metad",
        "POST",
        "/v1/meta/seek",
        metadata.SeekRequest,
        metadata.SeekReply,
        ("client",),
    ),
    Call(
        "meta.statfs",
        "metad",
        "POST",
        "/v1/meta/statfs",
        metadata.StatfsRequest,
        metadata.StatfsReply,
        ("client",),
    ),
    Call(
        "meta.grant",
        "metad",
        "POST",
        "/v1/meta/grant",
        metadata.GrantRequest,
        metadata.GrantReply,
        ("client",),
    ),
    Call(
        "meta.bad_replica",
        "metad",
        "POST",
        "/v1/meta/bad_replica",
        metadata.BadReplica,
        Empty,
        ("client",),
    ),
    # client -> metad: locks
    Call(
        "lock.set",
        "metad",
        "POST",
        "/v1/lock/set",
        locks.SetLock,
        locks.LockAnswer,
        ("client",),
    ),
    Call(
        "lock.cancel",
        "metad",
        "POST",
        "/v1/lock/cancel",
        locks.CancelLock,
        locks.LockAnswer,
        ("client",),
    ),
    Call(
        "lock.get",
        "metad",
        "POST",
        "/v1/lock/get",
        locks.GetLock,
        locks.GetLockReply,
        ("client",),
    ),
    # chunkd -> metad
    Call(
        "server.register",
        "metad",
        "POST",
        "/v1/server/register",
        cluster.Register,
        cluster.Registered,
        ("chunkd",),
    ),
    Call(
        "server.heartbeat",
        "metad",
        "POST",
        "/v1/server/heartbeat",
        cluster.Heartbeat,
        cluster.HeartbeatReply,
        ("chunkd",),
        idempotent=False,
    ),
    Call(
        "server.inventory",
        "metad",
        "POST",
        "/v1/server/inventory",
        cluster.Inventory,
        cluster.InventoryReply,
        ("chunkd",),
    ),
    # operator -> metad
    Call(
        "cluster.status",
        "metad",
        "GET",
        "/v1/cluster/status",
        Empty,
        cluster.ClusterStatus,
        ("operator",),
    ),
    Call(
        "cluster.info",
        "metad",
        "POST",
        "/v1/cluster/info",
        cluster.InfoRequest,
        cluster.InfoReply,
        ("operator",),
    ),
    Call(
        "cluster.fsck",
        "metad",
        "POST",
        "/v1/cluster/fsck",
        cluster.FsckRequest,
        cluster.FsckReport,
        ("operator",),
    ),
    Call(
        "cluster.events",
        "metad",
        "POST",
        "/v1/cluster/events",
        observe.EventsRequest,
        observe.EventsReply,
        ("operator",),
    ),
    # verifying
    Call(
        "cluster.lost",
        "metad",
        "POST",
        "/v1/cluster/lost",
        verify.FindLost,
        verify.LostReply,
        ("operator",),
    ),
    Call(
        "cluster.files",
        "metad",
        "POST",
        "/v1/cluster/files",
        verify.FilesBelow,
        verify.FilesReply,
        ("operator",),
    ),
    Call(
        "cluster.urge",
        "metad",
        "POST",
        "/v1/cluster/urge",
        verify.Urge,
        Empty,
        ("operator",),
    ),
    Call(
        "server.settled",
        "metad",
        "POST",
        "/v1/server/settled",
        verify.Settled,
        verify.SettledReply,
        ("chunkd",),
    ),
    # jobs
    Call(
        "admin.drain", "metad", "POST", "/v1/admin/drain", admin.Target, admin.AdminReply, _OPERATOR
    ),
    Call(
        "admin.enable",
        "metad",
        "POST",
        "/v1/admin/enable",
        admin.Target,
        admin.AdminReply,
        _OPERATOR,
    ),
    Call(
        "admin.remove",
        "metad",
        "POST",
        "/v1/admin/remove",
        admin.RemoveTarget,
        admin.AdminReply,
        _OPERATOR,
    ),
    Call("job.list", "metad", "POST", "/v1/job/list", jobs.JobsRequest, jobs.JobsReply, _OPERATOR),
    Call("job.start", "metad", "POST", "/v1/job/start", jobs.StartJob, jobs.JobStatus, _OPERATOR),
    Call("job.stop", "metad", "POST", "/v1/job/stop", jobs.JobRequest, jobs.JobStatus, _OPERATOR),
    Call(
        "job.resume", "metad", "POST", "/v1/job/resume", jobs.JobRequest, jobs.JobStatus, _OPERATOR
    ),
    # client or chunkd -> chunkd
    Call(
        "chunk.write",
        "chunkd",
        "PUT",
        "/v1/chunk/write",
        chunks.WriteChunk,
        chunks.WriteReply,
        ("client", "chunkd"),
        request_body=True,
    ),
    Call(
        "chunk.read",
        "chunkd",
        "POST",
        "/v1/chunk/read",
        chunks.ReadChunk,
        chunks.ReadReply,
        ("client", "chunkd"),
        reply_body=True,
    ),
    Call(
        "chunk.sync",
        "chunkd",
        "POST",
        "/v1/chunk/sync",
        chunks.SyncChunks,
        chunks.SyncReply,
        ("client",),
        idempotent=False,
    ),
    Call(
        "chunk.verify",
        "chunkd",
        "POST",
        "/v1/chunk/verify",
        chunks.VerifyChunk,
        chunks.VerifyReply,
        ("client", "chunkd", "operator"),
    ),
    Call(
        "chunk.salvage",
        "chunkd",
        "POST",
        "/v1/chunk/salvage",
        verify.SalvageChunk,
        verify.SalvageReply,
        ("chunkd",),
        reply_body=True,
    ),
)

CALLS: dict[str, Call] = {call.name: call for call in _ALL}


def by_path(service: str) -> dict[tuple[str, str], Call]:
    """(method, path) -> call, for the calls that one service answers."""
    return {(call.method, call.path): call for call in _ALL if call.service == service}
