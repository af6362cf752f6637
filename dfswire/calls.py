"""The table of remote calls: the only list of what crosses the network.

What mounts ask stands in clientcalls.py, what operators ask in operatorcalls.py, all else here.

Client, server, access checks, documentation and fault injection all read it.  A call has a name,
the service that answers, an HTTP method and path, a request and a reply type, and says whether raw
octets travel along and whether it may be repeated without asking (`idempotent`).

A request is a message in the body (MessagePack, or JSON by Content-Type), or, where `request_body`
is set, in the header `DFS-Message` with the octets as body.  Likewise for replies and `reply_body`.
An error is a `Fault` with status 4xx or 5xx.  `stream` replies are a sequence of frames, each a
4-byte big-endian length and a MessagePack message, until the connection ends.
"""

from __future__ import annotations

from dfswire import admission, chunks, heartbeats, hosts, inventories, journal, verify
from dfswire.call import Call
from dfswire.clientcalls import CLIENT_CALLS
from dfswire.identity import GUEST
from dfswire.messages import Empty
from dfswire.operatorcalls import OPERATOR_CALLS

__all__ = ["CALLS", "Call", "by_path"]

MESSAGE_HEADER = "DFS-Message"
VERSION_HEADER = "DFS-Version"  # the protocol version of the caller
REQUEST_ID_HEADER = "DFS-Request-Id"
DEADLINE_HEADER = "DFS-Deadline-S"  # seconds that the caller will still wait


_ALL = (
    *CLIENT_CALLS,
    # chunkd -> metad
    Call(
        "server.register",
        "metad",
        "POST",
        "/v1/server/register",
        hosts.Register,
        hosts.Registered,
        ("chunkd",),
    ),
    Call(
        "server.heartbeat",
        "metad",
        "POST",
        "/v1/server/heartbeat",
        heartbeats.Heartbeat,
        heartbeats.HeartbeatReply,
        ("chunkd",),
        idempotent=False,
    ),
    Call(
        "server.inventory",
        "metad",
        "POST",
        "/v1/server/inventory",
        inventories.Inventory,
        inventories.InventoryReply,
        ("chunkd",),
    ),
    Call(
        "server.changes",
        "metad",
        "POST",
        "/v1/server/changes",
        inventories.InventoryChanges,
        inventories.ChangesReply,
        ("chunkd",),
    ),
    # chunkd -> metad: the journal
    Call(
        "journal.follow",
        "metad",
        "POST",
        "/v1/journal/follow",
        journal.FollowJournal,
        journal.JournalFrame,
        ("chunkd",),
        idempotent=False,
        stream=True,
    ),
    Call("journal.ack", "metad", "POST", "/v1/journal/ack", journal.AckJournal, Empty, ("chunkd",)),
    Call(
        "journal.snapshot",
        "metad",
        "POST",
        "/v1/journal/snapshot",
        journal.SnapshotRequest,
        journal.Snapshot,
        ("chunkd", "operator"),
        reply_body=True,
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
    *OPERATOR_CALLS,
    # guest -> metad, and whoever has a certificate that is to be renewed
    Call(
        "admission.join",
        "metad",
        "POST",
        "/v1/admission/join",
        admission.Sign,
        admission.Signed,
        (GUEST,),
    ),
    Call(
        "admission.renew",
        "metad",
        "POST",
        "/v1/admission/renew",
        admission.Sign,
        admission.Signed,
        ("client", "chunkd", "operator"),
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
