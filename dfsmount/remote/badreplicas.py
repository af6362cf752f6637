"""Telling metad and the server of a replica that turned out bad; used by chunkclient.py.

Each replica is reported by one task at a time, in the background: the reader has gone on to the
next replica.  A report that is lost is no harm, the next reader or the scrub makes it again.
"""

from __future__ import annotations

import logging

import trio

from dfsmount.ports import Caller, Metadata
from dfswire.chunks import VerifyChunk
from dfswire.errors import DFSError
from dfswire.messages import Replica

log = logging.getLogger(__name__)


class BadReplicas:
    """Reports of this client that are under way."""

    def __init__(self, client: Caller, metadata: Metadata, nursery: trio.Nursery) -> None:
        self._client = client
        self._metadata = metadata
        self._nursery = nursery
        self._reporting: set[tuple[bytes, str]] = set()

    def report(self, chunk: bytes, replica: Replica, reason: str) -> None:
        """In the background, make metad and the replica's server look at it."""
        if (chunk, replica.disk) not in self._reporting:
            log.info("bad replica of %s on %s: %s", chunk.hex(), replica.address, reason)
            self._reporting.add((chunk, replica.disk))
            self._nursery.start_soon(self._tell_and_verify, chunk, replica, reason)

    async def _tell_and_verify(self, chunk: bytes, replica: Replica, reason: str) -> None:
        """metad learns it from us at once, and from the server when it has looked for itself."""
        try:
            await self._metadata.report_bad(chunk, replica.disk, reason)
            request = VerifyChunk(chunk=chunk, disk=replica.disk, token=replica.token)
            await self._client.call("chunk.verify", replica.address, request, attempts=1)
        except DFSError as problem:
            log.info("bad replica of %s could not be reported: %s", chunk.hex(), problem)
        finally:
            self._reporting.discard((chunk, replica.disk))
